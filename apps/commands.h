// The commands of the `motley` program. Each function adds its subcommand with its options to `app` and
// sets `action` to what is to run, if the user chose it.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace motley {

void add_train_command(CLI::App& app, std::function<void()>& action);
void add_eval_command(CLI::App& app, std::function<void()>& action);
void add_generate_command(CLI::App& app, std::function<void()>& action);
void add_doctor_command(CLI::App& app, std::function<void()>& action);
void add_bench_command(CLI::App& app, std::function<void()>& action);

// Thrown by an action that did its work but must not end with 0, as after a signal.
struct ExitWith {
  int code;
};

}  // namespace motley
