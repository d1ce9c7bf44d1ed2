//! The `segslurm` program. Everything it does is in the library's `run`.

fn main() -> std::process::ExitCode {
    segslurm::run(std::env::args_os())
}
