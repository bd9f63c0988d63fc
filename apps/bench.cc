#include "apps/bench_commands.h"
#include "apps/commands.h"

namespace motley {

void add_bench_command(CLI::App& app, std::function<void()>& action) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed on this machine");
  bench->require_subcommand(1);
  add_bench_operators(*bench, action);
  add_bench_train(*bench, action);
  add_bench_zero_experts(*bench, action);
  add_bench_gating(*bench, action);
}

}  // namespace motley
