#include "motley/train/training_run.h"

#include "motley/base/clock.h"
#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/base/log.h"
#include "motley/infer/threads.h"
#include "motley/io/atomic_file.h"
#include "motley/kernels/cpu/families.h"
#include "motley/models/registry.h"
#include "motley/ops/device.h"
#include "motley/train/finite.h"
#include "motley/train/step_memory.h"

namespace motley {
namespace {

using nlohmann::json;

constexpr double kReportSeconds = 15;  // least time between reports of a run that goes on

bool every(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

// Weights, gradients and two moments: 4 bytes each in fp32; in bf16 2 and 2, 8, and 4 for the master weights.
constexpr double kBytesPerParameter = 16;

MakeOptions make_options(const RunConfig& config) {
  const bool on_cpu = parse_device(config.train.device, place_of(config, "train.device")).is_cpu();
  return {.fp32_expert_gradients = config.train.dtype != at::kFloat && config.train.gradient_accumulation > 1,
          .source = place_of(config, "model."),
          .bytes_per_parameter = on_cpu ? kBytesPerParameter : 0};
}

// What can be wrong with the configuration shows before a text is read, which may take long.
RunData read_checked(const RunConfig& config, bool fresh) {
  if (fresh) {
    const MakeOptions options = make_options(config);
    const ModelSize size = check_model(config.model, config.train.dtype, options);
    if (options.bytes_per_parameter > 0) require_step_memory(config, size);
  }
  return read_run_data(config.data);
}

int64_t count_values(const std::vector<TrainedParameter>& parameters) {
  int64_t count = 0;
  for (const auto& parameter : parameters) count += parameter.tensor.numel();
  return count;
}

}  // namespace

TrainingRun::TrainingRun(const RunConfig& config, RunFolder& folder, std::optional<TrainerState> state)
    : config_(config),
      options_(config_.train),
      folder_(folder),
      data_(read_checked(config, !state)),
      window_({}) {
  const int64_t threads = use_threads(options_.threads);
  const c10::Device device = parse_device(options_.device, place_of(config_, "train.device"));
  const json configuration = to_json(config_);
  if (state && state->data != data_.fingerprint()) {
    throw UserError(Mistake{config_.data.path,
                            concat("the text that the run began with, ", state->data.dump()),
                            data_.fingerprint().dump(), "restore it, or choose another --out"});
  }
  const MakeOptions made = make_options(config_);
  if (state) {
    state_ = std::move(*state);
    saved_step_ = state_.step;
    model_ = load_model(folder_.checkpoint(state_.step), {options_.dtype, made.fp32_expert_gradients});
  } else {
    model_ = make_model(config_.model, options_.seed, options_.dtype, made);
  }
  if (!device.is_cpu()) use_deterministic_algorithms();
  model_->to(device);
  if (model_->vocab_size() != data_.tokenizer->vocab_size()) {
    throw UserError(Mistake{
        place_of(config_, "model.vocab_size"),
        concat(data_.tokenizer->vocab_size(), ", as data.tokenizer \"", data_.tokenizer->name(), "\" has"),
        concat(model_->vocab_size()), ""});
  }
  prompt_ = data_.tokenizer->encode(options_.sample_prompt);
  if (options_.sample_tokens > 0 && static_cast<int64_t>(prompt_.size()) > model_->max_positions()) {
    throw UserError(Mistake{place_of(config_, "train.sample_prompt"),
                            concat("at most the model's ", model_->max_positions(), " positions"),
                            concat(prompt_.size(), " tokens"), ""});
  }
  trainer_ = std::make_unique<Trainer>(*model_, config_, data_.tokens, data_.split);
  window_ = MetricsWindow(model_->num_experts());
  if (saved_step_ >= 0) {
    trainer_->optimizer().load(TensorFolder(folder_.checkpoint(state_.step), "optimizer"));
    window_.load(state_.window);
  }
  kernels::cpu_family();  // throws where MOTLEY_CPU_KERNELS asks for what this processor has not
  folder_.begin(configuration);
  state_.configuration = configuration;
  state_.data = data_.fingerprint();
  if (saved_step_ >= 0 && state_.threads != threads) {
    log_warn("the run used ", state_.threads, " threads and goes on with ", threads,
             ": results may differ in the last bits");
  }
  state_.threads = threads;
  num_parameters_ = count_values(trainer_->optimizer().parameters());
  report_ = std::make_unique<RunReport>(folder_.path());
}

TrainSummary TrainingRun::go(const StopSignal& stop) {
  log_info(saved_step_ < 0 ? "training " : "going on with ", folder_.path().string(), ": ",
           format_count(static_cast<double>(num_parameters_)), " parameters, ", state_.threads,
           " threads, step ", state_.step, " of ", options_.steps);
  ProgressOptions shown;
  shown.what = "train";
  shown.unit = "step";
  shown.total = options_.steps;
  shown.already = state_.step;
  Progress progress(shown);
  clock_ = reported_ = seconds_now();
  interrupted_ = [&stop] { return stop.received() != 0; };
  bool finished = false;
  try {
    open_records();
    finished = train(progress);
    if (!finished) {
      save();
    } else {
      progress.update(state_.step);
      progress.finish();
      finished = end();
    }
  } catch (const DivergedError& error) {
    renew_report();
    throw DivergedError(concat(error.what(), "; ", last_good(),
                               ". A lower train.learning_rate or a longer train.warmup_steps often helps."));
  } catch (...) {
    // Not even the first step was possible, for lack of memory perhaps: nothing is left behind.
    if (state_.step == 0 && saved_step_ < 0) folder_.discard();
    throw;
  }
  renew_report();
  TrainSummary summary = summarise(folder_, options_, state_);
  if (finished) {
    summary.model = folder_.model();
  } else {
    summary.signal = stop.received();
    log_info("stopped by signal ", summary.signal, " after step ", state_.step,
             "; the same command goes on from there");
  }
  return summary;
}

bool TrainingRun::train(Progress& progress) {
  while (true) {
    if (!state_.settled && !after_step(progress)) return false;
    if (!more_to_do(options_, state_)) return true;
    if (!trainer_->step(state_.step, window_, interrupted_)) return false;
    ++state_.step;
    state_.tokens += trainer_->tokens_per_step();
    state_.validation_loss.reset();
    state_.settled = state_.ended = false;
    update_time();
  }
}

// Each part is passed over where a run that was stopped in the next one has done it already.
bool TrainingRun::after_step(Progress& progress) {
  if (progress.due() && window_.steps() > 0) {
    progress.update(state_.step,
                    concat("loss ", format_decimal(window_.mean_loss(), 3), ", ",
                           format_count(window_.tokens_per_second()), " tokens/s, load max/mean ",
                           format_decimal(window_.worst_balance(), 2), ", ",
                           format_decimal(window_.ffn_experts_per_token(), 2), " FFN experts/token"));
  }
  const bool logs = every(state_.step, options_.log_every) || last_step();
  if (logs && window_.steps() > 0) log_window();
  const bool evaluates =
      every(state_.step, options_.eval_every) || (options_.keep_best && checkpoint_due()) || last_step();
  if (validates() && evaluates && !state_.validation_loss && !evaluate_validation(false)) return false;
  const bool samples = options_.sample_tokens > 0 && every(state_.step, options_.sample_every);
  if (samples && !last_step() && !sample()) return false;
  state_.settled = true;
  if (checkpoint_due() && !last_step()) save();
  if (seconds_now() - reported_ > kReportSeconds) {
    renew_report();
    reported_ = seconds_now();
  }
  return true;
}

void TrainingRun::save() {
  check_weights();
  if (options_.keep_best && state_.validation_loss &&
      (!state_.best_step || *state_.validation_loss < state_.best_loss)) {
    state_.best_step = state_.step;
    state_.best_loss = *state_.validation_loss;
  }
  update_time();
  // A model of fewer steps would otherwise pass for this run's.
  if (!state_.ended) std::filesystem::remove_all(folder_.model());
  state_.window = window_.state();
  state_.metrics_bytes = metrics_->sync();
  const std::filesystem::path checkpoint = folder_.checkpoint(state_.step);
  try {
    if (saved_step_ == state_.step) {
      write_trainer_state(checkpoint, state_);
    } else {
      write_checkpoint(checkpoint, *model_, *data_.tokenizer, trainer_->optimizer(), state_);
    }
  } catch (const UserError& error) {
    throw UserError(concat(error.what(), "; ", last_good()));
  }
  saved_step_ = state_.step;
  folder_.prune(saved_step_, options_.keep_checkpoints, state_.best_step);
}

bool TrainingRun::end() {
  if (!state_.ended) {
    if (window_.steps() > 0) log_window();
    save();  // whatever the rest of this function meets, the training is done
    const std::optional<double> partial = state_.validation_loss;
    const bool all = partial && options_.eval_tokens == 0;
    if (validates() && !all && !evaluate_validation(true)) return false;
    if (options_.sample_tokens > 0 && !sample()) return false;
    // The best checkpoint is chosen by losses over the same tokens.
    if (options_.eval_tokens > 0) state_.validation_loss = partial;
    state_.ended = true;
    save();
  }
  AtomicFolder model(folder_.model());
  save_model(*model_, model.path());
  write_tokenizer(*data_.tokenizer, model.path());
  model.commit();
  return true;
}

bool more_to_do(const TrainOptions& options, const TrainerState& state) {
  const bool out_of_time = options.max_minutes > 0 && state.seconds >= options.max_minutes * 60;
  return state.step < options.steps && !out_of_time;
}

bool TrainingRun::checkpoint_due() const { return every(state_.step, options_.checkpoint_every); }

void TrainingRun::update_time() {
  const double now = seconds_now();
  state_.seconds += now - clock_;
  clock_ = now;
}

std::string TrainingRun::last_good() const {
  if (saved_step_ < 0) return "there is no checkpoint yet";
  return concat("the last good checkpoint is ", folder_.checkpoint(saved_step_).string());
}

}  // namespace motley
