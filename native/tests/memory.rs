//! Whether freed memory is used again without the system's help. Without libtest, which would run
//! this in a second thread.

use segslurm_native::memory::keep_freed_pages;

/// Page faults of this process so far that needed no disk.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit_once(')').expect("a name in parentheses").1;
    after_name.split_whitespace().nth(7).and_then(|it| it.parse().ok()).expect("minflt")
}

/// Faults of making and freeing eight blocks of 40 MiB: 81,920 pages of 4 KiB, if each is fetched
/// anew.
fn of_eight_blocks() -> u64 {
    let fill = || drop(tch::Tensor::ones([40 << 20], (tch::Kind::Uint8, tch::Device::Cpu)));
    fill();
    let before = faults();
    (0..8).for_each(|_| fill());
    faults() - before
}

fn main() {
    let before = of_eight_blocks();
    keep_freed_pages();
    // Small blocks settle between the large ones first.
    of_eight_blocks();
    let after = of_eight_blocks();
    assert!(after * 20 < before, "{before} page faults before, {after} after");
}
