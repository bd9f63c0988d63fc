// `motley generate`: text or token ids that continue a prompt.
#include <algorithm>
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
#include "motley/base/log.h"
#include "motley/infer/generate.h"
#include "motley/infer/packing.h"
#include "motley/infer/token_cases.h"
#include "motley/text/tokenizer.h"

namespace motley {
namespace {

struct GenerateArguments {
  ModelArguments model;
  std::string prompt, tokens;
  bool has_prompt = false, has_seed = false;
  GenerateOptions options;
  bool json = false;
};

void explain(const CausalLm& model, const Generated& generated) {
  if (generated.reason == StopReason::kMaxPositions) {
    log_warn("stopped after ", generated.tokens.size(), " tokens: the model has ", model.max_positions(),
             " positions for prompt and text together");
  }
}

void generate_text(const GenerateArguments& arguments) {
  const auto tokenizer = read_tokenizer(find_model_folder(arguments.model.path));
  const auto model = arguments.model.load();
  if (tokenizer->vocab_size() > model->vocab_size()) {
    throw UserError(Mistake{
        arguments.model.path, concat("a vocabulary of at least the tokenizer's ", tokenizer->vocab_size()),
        concat(model->vocab_size()), "tokenizer.json and config.json must belong together"});
  }
  if (arguments.prompt.empty()) throw UserError(Mistake{"--prompt", "at least one character", "none", {}});
  GenerateOptions options = arguments.options;
  options.end_tokens = model->end_tokens();
  const auto is_end = [&](int64_t token) {
    return std::find(options.end_tokens.begin(), options.end_tokens.end(), token) != options.end_tokens.end();
  };
  const std::vector<std::vector<int64_t>> prompts = {tokenizer->encode(arguments.prompt)};
  check_generation(*model, prompts, options);  // before anything is printed
  std::string text;
  bool begun = false;
  // The prompt comes with the first token: where there is none, an error stands alone.
  const auto show = [&](const std::string& piece) {
    if (arguments.json) return;
    std::cout << (begun ? "" : arguments.prompt) << piece << std::flush;
    begun = true;
  };
  const double start = seconds_now();
  std::vector<Generated> generated;
  try {
    generated = generate(*model, prompts, options, [&](size_t, int64_t token) {
      // A model may have more ids than its tokenizer; those stand for no text.
      const bool shown = !is_end(token) && token < tokenizer->vocab_size();
      const std::string piece = shown ? tokenizer->decode({token}) : "";
      text += piece;
      show(piece);
      return true;
    });
  } catch (...) {
    if (begun) std::cout << std::endl;
    throw;
  }
  show("");
  const double seconds = seconds_now() - start;
  const Generated& one = generated.front();
  explain(*model, one);
  const double rate = static_cast<double>(one.tokens.size()) / seconds;
  if (!arguments.json) {
    std::cout << std::endl;
    log_info(one.tokens.size(), " tokens in ", format_duration(seconds), " (", format_count(rate),
             " tokens/s)");
    return;
  }
  const nlohmann::json result = {{"prompt", arguments.prompt}, {"text", text},
                                 {"tokens", one.tokens},       {"stop", describe(one.reason)},
                                 {"seconds", seconds},         {"tokens_per_second", rate}};
  // A cut-off character is no valid UTF-8.
  std::cout << json_text(result) << std::endl;
}

void generate_ids(const GenerateArguments& arguments) {
  const auto prompts = read_token_cases(arguments.tokens);
  const auto model = arguments.model.load();
  GenerateOptions options = arguments.options;
  options.end_tokens = model->end_tokens();
  check_prompts(*model, prompts, arguments.tokens + ": element");
  const double start = seconds_now();
  const auto generated = generate(*model, prompts, options);
  const double seconds = seconds_now() - start;
  nlohmann::json tokens = nlohmann::json::array(), stops = nlohmann::json::array();
  for (const Generated& one : generated) {
    explain(*model, one);
    tokens.push_back(one.tokens);
    stops.push_back(describe(one.reason));
  }
  if (arguments.json) {
    std::cout << nlohmann::json{{"tokens", tokens}, {"stop", stops}, {"seconds", seconds}}.dump()
              << std::endl;
  } else {
    for (const auto& one : tokens) std::cout << one.dump() << '\n';
    std::cout << std::flush;
  }
}

void run_generate(const GenerateArguments& arguments) {
  const bool ids = !arguments.tokens.empty();
  if (arguments.has_prompt == ids) {
    throw UserError(Mistake{"motley generate", "either --prompt or --tokens", ids ? "both" : "neither", {}});
  }
  if (arguments.has_seed && arguments.options.sampling.temperature == 0) {
    throw UserError(Mistake{"--seed",
                            "no such option without --temperature: the likeliest token needs no chance", "it",
                            "set a temperature above 0"});
  }
  try {
    ids ? generate_ids(arguments) : generate_text(arguments);
  } catch (const UserError& error) {
    throw UserError(in_words(error.what(), {{"max_new_tokens", "--max-new-tokens"},
                                            {"temperature", "--temperature"},
                                            {"top_k", "--top-k"},
                                            {"top_p", "--top-p"},
                                            {ids ? "" : "prompt 0", "--prompt"}}));
  } catch (const NotFiniteError& error) {
    throw NotFiniteError(concat(arguments.model.path, ": ", error.what()));
  }
}

}  // namespace

void add_generate_command(CLI::App& app, std::function<void()>& action) {
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  CLI::App* command =
      app.add_subcommand("generate", "Continue a prompt, as text that streams or as token ids");
  arguments->model.add_to(*command);
  auto* prompt = command->add_option("--prompt", arguments->prompt, "The text to continue");
  command
      ->add_option(
          "--tokens", arguments->tokens,
          "A JSON file instead: a list of lists of token ids, or of objects with one under \"prompt\"")
      ->check(not_empty("a JSON file"));
  command->add_option("--max-new-tokens", options.max_new_tokens, "Stop after this many tokens")
      ->capture_default_str();
  command->add_option("--temperature", options.sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", options.sampling.top_k, "Draw from the k likeliest tokens (default: all)");
  command->add_option("--top-p", options.sampling.top_p,
                      "Draw from the fewest likeliest tokens whose probabilities reach p (default: 1)");
  auto* seed = command->add_option("--seed", options.sampling.seed, "The same seed draws the same tokens")
                   ->check(within<uint64_t>(0, std::numeric_limits<uint64_t>::max()))
                   ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object as the last line of standard output");
  command->callback([arguments, prompt, seed, &action] {
    arguments->has_seed = seed->count() > 0;
    arguments->has_prompt = prompt->count() > 0;
    action = [arguments] { run_generate(*arguments); };
  });
}

}  // namespace motley
