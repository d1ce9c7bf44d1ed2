//! segslurm with a head and a transform of one's own: the same command line, configs, checks, ranks
//! and Slurm.

mod gated_head;
mod speckle;

fn main() -> std::process::ExitCode {
    segslurm::Program::new()
        .head::<gated_head::GatedKeys>("GatedHead")
        .transform::<speckle::Speckle>("Speckle")
        .run(std::env::args_os())
}
