//! Where a node is in the network: Slurm's name for it need not be one that resolves, and slurmctld knows its address.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long slurmctld may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `NodeAddr` of the node, as `scontrol` tells it; else why it does not.
pub fn address(node: &str) -> Result<String, String> {
    let mut command = Command::new("scontrol");
    command.args(["--oneliner", "show", "node", node]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "scontrol is not on PATH".to_owned(),
        _ => format!("scontrol does not start: {error}"),
    })?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("scontrol does not answer within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said).map_err(|error| error.to_string())?;
    }
    parse(&said).ok_or_else(|| format!("scontrol knows no node {node}"))
}

/// The address in a line of `scontrol --oneliner show node`.
fn parse(said: &str) -> Option<String> {
    let address = said.split_whitespace().find_map(|word| word.strip_prefix("NodeAddr="))?;
    (!address.is_empty()).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_nodes_line() {
        let said =
            "NodeName=n1 Arch=x86_64 Gres=gpu:8 NodeAddr=10.0.0.7 NodeHostName=gpu7 Port=16576 Version=22.05.8 State=IDLE\n";
        assert_eq!(parse(said).as_deref(), Some("10.0.0.7"));
        assert_eq!(parse("Node zz not found"), None);
    }
}
