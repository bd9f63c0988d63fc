// The `motley` command. Exit codes: 0 done, 1 the program or the run failed, 2 a mistake in the command, the
// configuration or the files, 128 + n stopped by signal n after saving.
#include <c10/util/Exception.h>

#include <csignal>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "apps/commands.h"
#include "motley/base/error.h"
#include "motley/base/memory.h"

namespace {

enum ExitCode { kDone = 0, kFailed = 1, kMistake = 2 };

int report(ExitCode code, std::string_view message) {
  std::cerr << "motley: error: " << message << '\n';
  return code;
}

int report_no_memory() {
  return report(kMistake, "out of memory; try a smaller model, batch or sequence length");
}

// What a user can ask for is checked before operators see it: what libtorch throws is ours, but for a lack of
// memory.
int report(const c10::Error& error) {
  const std::string message = error.what_without_backtrace();
  if (message.find("can't allocate memory") != std::string::npos) return report_no_memory();
  return report(kFailed, message);
}

// The command line's errors look like all others. Without a command the one that was asked for is told: CLI11
// only says that it wants one.
std::string describe(const CLI::App* app, const CLI::Error& error) {
  std::string name = app->get_name();
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    name += " " + app->get_name();
  }
  const auto commands = app->get_subcommands([](const CLI::App*) { return true; });
  std::string message = error.what();
  if (!commands.empty()) {
    std::string known;
    for (const CLI::App* command : commands) known += (known.empty() ? "" : ", ") + command->get_name();
    const std::vector<std::string> given = app->remaining();
    message = motley::UserError(motley::Mistake{name, "one of the commands " + known,
                                                given.empty() ? "none" : "'" + given.front() + "'", ""})
                  .what();
  }
  return motley::concat("motley: error: ", message, "\nRun with --help for more information.\n");
}

// A result that did not arrive is no success: on a full disk, say.
int check_output(int code) {
  std::cout.flush();
  if (std::cout.good() || code != kDone) return code;
  return report(kMistake, "cannot write standard output; what was printed is not complete");
}

int run(const std::function<void()>& action) {
  try {
    action();
    return kDone;
  } catch (const motley::ExitWith& exit) {
    return exit.code;
  } catch (const motley::UserError& error) {
    return report(kMistake, error.what());
  } catch (const c10::Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report_no_memory();
  } catch (const std::filesystem::filesystem_error& error) {  // a question that the system did not answer
    return report(kMistake,
                  motley::concat("cannot use '", error.path1().string(), "': ", error.code().message()));
  } catch (const std::logic_error& error) {
    return report(kFailed, std::string("a bug in Motley: ") + error.what());
  } catch (const std::exception& error) {
    return report(kFailed, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  motley::set_up_memory();
  // A write beyond a limit on file sizes fails like one on a full disk, instead of ending the process.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app("Motley trains and serves mixture-of-experts language models.", "motley");
  app.set_version_flag("--version", std::string("motley ") + MOTLEY_VERSION);
  app.require_subcommand(1);
  app.failure_message(describe);
  app.footer(
      "`motley COMMAND --help` tells more.\n"
      "Exit codes: 0 done; 1 the run or the program failed; 2 a mistake in the command, the configuration "
      "or\n"
      "the files; 128 + n stopped by signal n after saving.");
  std::function<void()> action;
  motley::add_train_command(app, action);
  motley::add_eval_command(app, action);
  motley::add_generate_command(app, action);
  motley::add_bench_command(app, action);
  motley::add_doctor_command(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return check_output(app.exit(error, std::cout, std::cerr) == 0 ? kDone : kMistake);
  }
  return check_output(run(action));
}
