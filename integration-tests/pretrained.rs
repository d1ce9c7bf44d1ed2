//! Pretrained weights over HTTPS: fetched once, checked, found again without a network; a way out
//! where none is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::harness::{self, ends_in, text};
use crate::launchers::program;

/// An HTTPS server on this machine, for the files of a folder, with a certificate of its own
/// authority.
struct Server {
    process: Child,
    port: u16,
    authority: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Option<Self> {
        let openssl = program("openssl")?;
        let run = |line: &str| {
            ends_in(Command::new(&openssl).args(line.split(' ')).current_dir(folder), 0)
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        run(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"));
        run(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").expect("writes");
        run("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
             -days 2 -extfile names");
        let port = harness::free_port();
        let mut command = Command::new(&openssl);
        command.args([
            "s_server",
            "-WWW",
            "-cert",
            "server.pem",
            "-key",
            "server.key",
            "-accept",
            &port.to_string(),
        ]);
        let process = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self {
            process: process.expect("openssl starts"),
            port,
            authority: folder.join("ca.pem"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("localhost", port)).is_err() {
            assert!(Instant::now() < deadline, "openssl s_server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).expect("a file")).iter().map(|it| format!("{it:02x}")).collect()
}

/// A training that starts from the pretrained weights at `address`, with torch's cache under
/// `home`.
fn train(work_dir: &Path, home: &Path, authority: &Path, address: &str) -> Command {
    let mut command = harness::train(work_dir, 1);
    command.args([
        "model.backbone.init_cfg.type=Pretrained",
        "model.backbone.init_cfg.prefix=backbone",
    ]);
    command.arg(format!("model.backbone.init_cfg.checkpoint={address}"));
    command.env("TORCH_HOME", home).env("SSL_CERT_FILE", authority);
    for proxy in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

#[test]
fn weights_are_fetched_once_checked_and_named_where_they_cannot_be_had() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| folder.path().join(name);
    ends_in(&mut harness::train(&place("source"), 2), 0);
    let weights = place("source").join("iter_2.safetensors");
    let served = place("served");
    fs::create_dir(&served).expect("a folder");
    let Some(server) = Server::start(&served) else { return };
    let file = format!("resnet18-{}.safetensors", &sha256(&weights)[..8]);
    fs::copy(&weights, served.join(&file)).expect("copies");
    fs::copy(&weights, served.join("resnet18-00000000.safetensors")).expect("copies");
    let address = |file: &str| format!("https://localhost:{}/{file}", server.port);
    let start = |work: &str, home: &str, file: &str| {
        train(&place(work), &place(home), &server.authority, &address(file))
    };

    let first = text(&ends_in(&mut start("first", "home", &file), 0).stdout);
    assert!(first.contains("fetching https://localhost"), "{first}");
    let cached = place("home").join("hub/checkpoints").join(&file);
    assert_eq!(sha256(&cached), sha256(&weights));

    // Every other way to name a checkpoint leads there too: it is in the cache now.
    let mut begun = harness::train(&place("begun"), 1);
    begun.arg(format!("load_from={}", address(&file))).env("TORCH_HOME", place("home"));
    let told = text(&ends_in(&mut begun, 0).stdout);
    assert!(
        told.contains("loading weights from") && told.contains(&cached.display().to_string()),
        "{told}"
    );
    let mut tested = harness::segslurm();
    tested.args(["test", harness::CONFIG, &address(&file), "--work-dir"]).arg(place("tested"));
    tested
        .args(harness::small(harness::dataset(), 1))
        .env("TORCH_HOME", place("home2"))
        .env("SSL_CERT_FILE", &server.authority);
    let told = text(&ends_in(&mut tested, 0).stdout);
    assert!(told.contains("fetching https://localhost") && told.contains("mIoU"), "{told}");

    let message =
        text(&ends_in(&mut start("wrong", "home", "resnet18-00000000.safetensors"), 66).stderr);
    assert!(
        message.contains("expected 00000000") && message.contains(&sha256(&weights)[..8]),
        "{message}"
    );
    // A certificate that nobody vouches for.
    let message =
        text(&ends_in(start("distrusted", "other", &file).env_remove("SSL_CERT_FILE"), 66).stderr);
    assert!(message.contains("certificate"), "{message}");

    let port = server.port;
    let authority = server.authority.clone();
    drop(server);
    let offline = |work: &str, home: &str| {
        train(&place(work), &place(home), &authority, &format!("https://localhost:{port}/{file}"))
    };
    let second = text(&ends_in(&mut offline("second", "home"), 0).stdout);
    assert!(!second.contains("fetching"), "{second}");
    let message = text(&ends_in(&mut offline("nowhere", "empty"), 66).stderr);
    let expected = place("empty").join("hub/checkpoints").join(&file).display().to_string();
    assert!(message.contains("put it at") && message.contains(&expected), "{message}");
    let left = fs::read_dir(place("empty").join("hub/checkpoints")).expect("the cache").count();
    assert_eq!(left, 0, "a part of a file was left behind");
}
