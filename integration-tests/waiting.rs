//! How libgomp's threads wait: briefly, unless the user has said otherwise.

use crate::harness::{segslurm, text};

/// The spin count that libgomp says it has, with this environment on top.
fn spin_count(variables: &[(&str, &str)]) -> String {
    let mut command = segslurm();
    command
        .arg("-V")
        .env_remove("OMP_WAIT_POLICY")
        .env_remove("GOMP_SPINCOUNT")
        .env("OMP_DISPLAY_ENV", "verbose");
    let output = command.envs(variables.iter().copied()).output().expect("the program starts");
    let told = text(&output.stderr);
    let line = told
        .lines()
        .find(|it| it.contains("GOMP_SPINCOUNT"))
        .unwrap_or_else(|| panic!("no spin count in:\n{told}"));
    line.split('\'').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn threads_wait_briefly_unless_the_user_says_otherwise() {
    assert_eq!(spin_count(&[]), "1000");
    assert_eq!(spin_count(&[("GOMP_SPINCOUNT", "77")]), "77");
    assert_eq!(spin_count(&[("OMP_WAIT_POLICY", "passive")]), "0");
}
