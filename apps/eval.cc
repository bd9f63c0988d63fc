// `motley eval`: the loss of a model on text, or its logits for given tokens.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/model_arguments.h"
#include "apps/option_checks.h"
#include "motley/base/clock.h"
#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/base/progress.h"
#include "motley/infer/evaluate.h"
#include "motley/infer/packing.h"
#include "motley/infer/sampler.h"
#include "motley/infer/token_cases.h"
#include "motley/io/path_within.h"
#include "motley/io/safetensors.h"
#include "motley/text/token_store.h"

namespace motley {
namespace {

struct EvalArguments {
  ModelArguments model;
  std::string data, tokens, logits;
  EvaluationOptions options;
  std::string of_text;  // the first option given that only --data uses
  bool json = false;
};

void eval_text(const EvalArguments& arguments) {
  // All that can be wrong is found before the model is loaded.
  const auto tokenizer = read_tokenizer(find_model_folder(arguments.model.path));
  const TextSource source(arguments.data);
  const auto [tokens, num_bytes] = tokenize(source, *tokenizer);
  const auto model = arguments.model.load();

  std::unique_ptr<Progress> progress;
  const double start = seconds_now();
  const Evaluation result = evaluate(*model, tokens, arguments.options, [&](int64_t done, int64_t of) {
    if (!progress)
      progress = std::make_unique<Progress>(ProgressOptions{.what = "eval", .unit = "window", .total = of});
    progress->update(done);
  });
  const double seconds = seconds_now() - start;
  if (progress) progress->finish();
  if (!result.not_finite.empty()) {
    const TokenWindow& window = result.not_finite.front();
    throw NotFiniteError(concat(arguments.data, ": the loss is ", result.loss, " from token ", window.begin,
                                " on; the model's values are not finite there"));
  }

  // Tokens of a text stand for num_bytes / N bytes each; with bytes as tokens that is 1.
  const double bytes_per_token = static_cast<double>(num_bytes) / static_cast<double>(tokens.size());
  const double nats_per_byte = result.loss / bytes_per_token;
  if (arguments.json) {
    std::cout << json_text({{"loss", nats_per_byte},
                            {"nats_per_byte", nats_per_byte},
                            {"nats_per_token", result.loss},
                            {"tokens", result.num_tokens},
                            {"bytes_per_token", bytes_per_token},
                            {"ffn_experts_per_token", result.ffn_experts_per_token},
                            {"seconds", seconds},
                            {"tokens_per_second", static_cast<double>(result.num_tokens) / seconds}})
              << std::endl;
    return;
  }
  std::cout << format_decimal(nats_per_byte, 4) << " nats/byte over " << result.num_tokens << " tokens ("
            << format_count(static_cast<double>(result.num_tokens) / seconds) << " tokens/s)" << std::endl;
}

// Before the model is read: its logits must not take the place of what they are made of.
void check_place_of_logits(const EvalArguments& arguments) {
  std::error_code error;
  const bool of_model =
      std::filesystem::exists(arguments.logits, error) && path_within(arguments.logits, arguments.model.path);
  if (!of_model && !path_within(arguments.logits, arguments.tokens)) return;
  throw UserError(
      Mistake{concat("--logits ", arguments.logits),
              "a file of its own",
              of_model ? "one that is there already in the model's folder" : "the file of --tokens",
              {}});
}

void eval_tokens(const EvalArguments& arguments) {
  check_place_of_logits(arguments);
  const auto prompts = read_token_cases(arguments.tokens);
  const auto model = arguments.model.load();
  check_prompts(*model, prompts, arguments.tokens + ": element");
  const std::vector<at::Tensor> logits = prompt_logits(*model, prompts);
  NamedTensors named;
  for (size_t i = 0; i < logits.size(); ++i) named.emplace_back(concat("logits_", i), logits[i]);
  write_safetensors(arguments.logits, named);
  if (arguments.json) {
    std::cout << json_text({{"logits", arguments.logits}, {"prompts", logits.size()}}) << std::endl;
  } else {
    std::cout << "wrote the logits of " << logits.size() << " prompts to " << arguments.logits << std::endl;
  }
}

void run_eval(const EvalArguments& arguments) {
  const bool text = !arguments.data.empty(), ids = !arguments.tokens.empty();
  if (text == ids) {
    throw UserError(Mistake{"motley eval", "either --data or --tokens", text ? "both" : "neither", {}});
  }
  if (ids != !arguments.logits.empty()) {
    throw UserError(Mistake{"motley eval", "--tokens and --logits together", "one of them", {}});
  }
  if (ids && !arguments.of_text.empty()) {
    throw UserError(
        Mistake{arguments.of_text, "no such option with --tokens, where it has no effect", "it", {}});
  }
  try {
    text ? eval_text(arguments) : eval_tokens(arguments);
  } catch (const UserError& error) {
    throw UserError(in_words(error.what(), {{"window", "--window"},
                                            {"batch_windows", "--batch"},
                                            {"max_windows", "--max-windows"},
                                            {"data", "--data"}}));
  }
}

}  // namespace

void add_eval_command(CLI::App& app, std::function<void()>& action) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command =
      app.add_subcommand("eval", "The loss of a model on text, or its logits for given tokens");
  arguments->model.add_to(*command);
  command->add_option("--data", arguments->data, "Text: a file, a .gz file or a folder of them")
      ->check(not_empty("a text file, a .gz file or a folder of them"));
  command
      ->add_option("--tokens", arguments->tokens,
                   "A JSON file: a list of lists of token ids, or of objects with one under \"prompt\"")
      ->check(not_empty("a JSON file"));
  command
      ->add_option("--logits", arguments->logits,
                   "Where the logits of --tokens go: a safetensors file with logits_<i> [L, V] in fp32")
      ->check(not_empty("a file to write"));
  auto* window =
      command
          ->add_option(
              "--window", arguments->options.window,
              "Predicted tokens a window, each seen without what came before it (default: the model's "
              "positions, at most 512)")
          ->check(within<int64_t>(1, std::numeric_limits<int64_t>::max()));
  auto* max_windows =
      command->add_option("--max-windows", arguments->options.max_windows,
                          "Evaluate this many windows, evenly spread over the text (default: all)");
  auto* batch =
      command->add_option("--batch", arguments->options.batch_windows, "Windows in one forward pass")
          ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object as the last line of standard output");
  command->callback([arguments, window, max_windows, batch, &action] {
    for (const CLI::Option* option : {window, max_windows, batch}) {
      if (option->count() > 0 && arguments->of_text.empty()) arguments->of_text = option->get_name();
    }
    action = [arguments] { run_eval(*arguments); };
  });
}

}  // namespace motley
