//! Two processes over a real store and real Gloo. The test starts itself again, once per rank.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use segslurm_native::collective::{GlooDevice, ProcessGroup, Reduce, Store};
use tch::{Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What each of the two processes does: every collective, its result checked against arithmetic.
fn work(rank: usize, store: &Store) {
    assert!((1..=2).contains(&store.add("arrived", 1).expect("add")));
    let group = ProcessGroup::gloo(
        &store.prefixed("gloo").expect("prefix"),
        rank,
        2,
        TIMEOUT,
        GlooDevice::Address("127.0.0.1"),
    )
    .expect("group");
    let mine = (rank + 1) as f64;
    let full = |value: f64| Tensor::full([3], value, (Kind::Float, tch::Device::Cpu));
    let values = |tensor: Tensor| {
        Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).expect("values")
    };

    let reduced = |operation| {
        values(
            group.all_reduce(full(mine), operation).and_then(|it| it.wait()).expect("all_reduce"),
        )
    };
    assert_eq!(reduced(Reduce::Sum), [3.0; 3]);
    assert_eq!(reduced(Reduce::Min), [1.0; 3]);
    assert_eq!(reduced(Reduce::Max), [2.0; 3]);
    let root = group.broadcast(full(mine), 1).and_then(|it| it.wait()).expect("broadcast");
    assert_eq!(values(root), [2.0; 3]);
    let gathered = group.all_gather(&full(mine)).and_then(|it| it.wait()).expect("all_gather");
    assert_eq!(gathered.size(), [2, 3]);
    assert_eq!(values(gathered), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);

    // Several in flight at once, waited for in another order; dropping one unwaited is allowed.
    let large = || Tensor::full([1 << 18], mine, (Kind::Float, tch::Device::Cpu));
    let first = group.all_reduce(large(), Reduce::Sum).expect("start");
    let second = group.all_reduce(large(), Reduce::Max).expect("start");
    drop(group.all_reduce(large(), Reduce::Sum).expect("start"));
    assert_eq!(second.wait().expect("second").double_value(&[7]), 2.0);
    assert_eq!(first.wait().expect("first").double_value(&[7]), 3.0);

    store.set("done", b"yes").expect("set");
    assert_eq!(store.get("done", TIMEOUT).expect("get"), b"yes");
    assert!(store.has("done").expect("has") && !store.has("never").expect("has"));
    let error = store.get("never", Duration::from_millis(50)).expect_err("nobody sets it");
    assert!(error.to_string().to_lowercase().contains("time"), "{error}");
    // The store lives in rank 0, which therefore leaves last.
    store.add("left", 1).expect("add");
    while rank == 0 && store.add("left", 0).expect("add") < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_processes_agree_on_every_collective() {
    if let Ok(port) = std::env::var("TWO_RANKS_PORT") {
        let store =
            Store::connect("127.0.0.1", port.parse().expect("port"), TIMEOUT).expect("connect");
        return work(1, &store);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let mut peer = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "two_processes_agree_on_every_collective", "--nocapture"])
        .env("TWO_RANKS_PORT", port.to_string())
        .spawn()
        .expect("start the peer");
    let store = Store::serve(listener.as_raw_fd(), port, TIMEOUT).expect("serve");
    std::mem::forget(listener); // The store owns the socket now.
    work(0, &store);
    assert!(peer.wait().expect("wait").success(), "rank 1 failed");
}
