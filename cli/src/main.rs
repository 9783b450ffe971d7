use std::process::ExitCode;

fn main() -> ExitCode {
    muster::run()
}
