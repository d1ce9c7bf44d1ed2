//! How the ranks find each other: rank 0 serves a `TCPStore`, all say that they are there, rank 0
//! gives the word to start.
//!
//! The roster (see [`Roster`]) is either all that a rank needs to go on, or why nobody does: so
//! every rank that came ends with the same message, and it names those who did not. Rank 0 binds
//! its socket itself and hands it to the store, hence a taken port is known before anything else
//! happens, and a free one is never lost between choosing and using it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::time::{Duration, Instant};

use segslurm_native::collective::Store;
use segslurm_native::cuda;
use serde::{Deserialize, Serialize};

use super::accelerator::Accelerator;
use super::group::{Device, Meeting};
use super::launcher::Launched;
use super::lifeline::{Lifeline, name, own_address};
use super::{Backend, DistConfig, DistError, Group};
use crate::slurm::client;

/// Under which key rank 0 says which run its store serves.
const RUN: &str = "segslurm/run";
/// How long a node's name may fail to resolve before the ranks give up.
const UNRESOLVED: Duration = Duration::from_secs(5);

/// What a rank says when it comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Arrival {
    host: String,
    /// The address that it reaches rank 0 from.
    address: IpAddr,
    world: usize,
    /// There is a CUDA device for it alone.
    gpu: bool,
    /// It was given GPUs and cannot use them: why.
    trouble: Option<String>,
}

/// What rank 0 says when all have come, or when it has waited long enough.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Roster {
    error: Option<String>,
    arrivals: Vec<Arrival>,
    backend: Backend,
    lifeline: u16,
}

impl Roster {
    /// Reads what rank 0 says to a world of this size.
    pub(super) fn read(bytes: &[u8], world: usize) -> Result<Self, String> {
        let roster: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match roster.arrivals.len() {
            came if roster.error.is_none() && came != world => {
                Err(format!("it speaks of {came} ranks, and {world} are to come"))
            }
            _ => Ok(roster),
        }
    }
}

/// Joins the run that `launched` is a part of. `interface` is the network interface that Gloo and
/// the lifeline are to use (`GLOO_SOCKET_IFNAME`), for machines with several; without it they use
/// the one that leads to the other machines.
///
/// Returns within `rendezvous_timeout` and a few seconds, whatever the other ranks do. Where one
/// rank cannot use the GPUs that it was given, all of them end in that error.
pub fn join(
    launched: &Launched,
    config: &DistConfig,
    interface: Option<&str>,
    accelerator: &Accelerator,
) -> Result<Group, DistError> {
    if launched.world == 1 {
        return accelerator
            .trouble
            .clone()
            .map_or_else(|| Ok(Group::alone()), |it| Err(DistError::Accelerator(it)));
    }
    let hostname = || {
        nix::unistd::gethostname()
            .map_or_else(|_| "?".into(), |it| it.to_string_lossy().into_owned())
    };
    let host = launched.node.clone().unwrap_or_else(hostname);
    let patience = config.rendezvous_timeout();
    let deadline = Instant::now() + patience;
    let place = format!("{}:{}", launched.address, launched.port);
    let lost = |error: segslurm_native::NativeError| {
        DistError::Rendezvous(format!("the meeting at {place} broke up: {error}"))
    };

    let (store, address, zero) = open(launched, deadline, patience)?;
    let store = store.prefixed(&format!("segslurm/{}", launched.id)).map_err(lost)?;
    let arrival = Arrival {
        host,
        address,
        world: launched.world,
        gpu: launched.has_own_gpu(),
        trouble: accelerator.trouble.clone(),
    };
    announce(&store, launched.rank, &arrival).map_err(lost)?;

    let gathering = Gathering { launched, config, store: &store, deadline, patience };
    let (roster, listener) = if launched.rank == 0 {
        gathering.decide().map_err(lost)?
    } else {
        // Rank 0 may have come last, and then waits as long again.
        let roster = store.get("word", patience + Duration::from_secs(15)).map_err(|_| {
            DistError::Rendezvous(format!(
                "{} did not arrive within {} s at {place}: something answers there, but it does \
                 not start the run",
                name(0, launched.hosts.first().map(String::as_str)),
                patience.as_secs_f64()
            ))
        })?;
        let _ = store.add("heard", 1);
        let roster = Roster::read(&roster, launched.world);
        (
            roster.map_err(|why| {
                DistError::Rendezvous(format!(
                    "rank 0 at {place} gives an answer that is none: {why}"
                ))
            })?,
            None,
        )
    };
    if let Some(error) = roster.error {
        return Err(DistError::Rendezvous(error));
    }

    let addresses = outward(&roster.arrivals);
    let hosts: Vec<String> = roster.arrivals.iter().map(|it| it.host.clone()).collect();
    let timeout = config.timeout();
    let lifeline = match listener {
        Some(listener) => Lifeline::serve(listener, hosts.clone(), timeout, patience),
        None => {
            let to = SocketAddr::new(
                zero.unwrap_or_else(|| reachable(&roster.arrivals, launched.rank)),
                roster.lifeline,
            );
            Lifeline::connect(launched.rank, to, hosts.clone(), timeout, patience)
        }
    };
    let lifeline = lifeline.map_err(DistError::Rendezvous)?;
    let device = match roster.backend {
        Backend::Nccl => Device::Nccl(launched.gpu_index().unwrap_or(0)),
        Backend::Gloo => match interface {
            Some(name) => Device::GlooInterface(name.to_owned()),
            None => Device::GlooAddress(addresses[launched.rank].to_string()),
        },
    };
    Group::meet(Meeting {
        rank: launched.rank,
        world: launched.world,
        local_rank: launched.local_rank,
        local_world: launched.local_world,
        hosts,
        store,
        device,
        timeout,
        lifeline,
    })
}

/// The store, the address that this machine has on the way to rank 0, and the one at which rank 0
/// was reached.
fn open(
    launched: &Launched,
    deadline: Instant,
    patience: Duration,
) -> Result<(Store, IpAddr, Option<IpAddr>), DistError> {
    let place = format!("{}:{}", launched.address, launched.port);
    if launched.rank != 0 || launched.served {
        let (to, from) = reach(launched, deadline, patience)?;
        let store = Store::connect(&to.ip().to_string(), to.port(), patience).map_err(|error| {
            DistError::Rendezvous(format!(
                "{place} answers, but is no meeting place of ours: {error}"
            ))
        })?;
        if launched.served {
            return Ok((store, from, None));
        }
        // Another run's rank 0 may sit there; ours then has met a taken port, and nobody should
        // wait for it.
        let run = store.get(RUN, patience.min(Duration::from_secs(10)));
        let run = run.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        return match run {
            Ok(run) if run == launched.id => Ok((store, from, Some(to.ip()))),
            Ok(run) => Err(taken(
                launched,
                &format!(
                    "{place} is the meeting place of another run ({run}, and this is {})",
                    launched.id
                ),
            )),
            Err(_) => {
                Err(taken(launched, &format!("{place} is the meeting place of something else")))
            }
        };
    }
    let listening = match launched.listening {
        Some(inherited) => inherited,
        None => listen(launched.port, &launched.port_from)?.into_raw_fd(),
    };
    let store = Store::serve(listening, launched.port, patience)
        .and_then(|store| store.set(RUN, launched.id.as_bytes()).map(|()| store))
        .map_err(|error| {
            DistError::Rendezvous(format!("rank 0 cannot serve at {place}: {error}"))
        })?;
    let own = resolve(launched).ok().and_then(|all| all.into_iter().find_map(own_address));
    Ok((store, own.unwrap_or(IpAddr::from([127, 0, 0, 1])), None))
}

/// Listens on the port, on all addresses of this machine; 0 for any free one. `from` is who chose
/// it, for the message.
pub(crate) fn listen(port: u16, from: &str) -> Result<TcpListener, DistError> {
    let both = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port));
    let bound = match both {
        // A machine without IPv6.
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
        }
        other => other,
    };
    bound.map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::AddrInUse => "Address already in use".to_owned(),
            _ => error.to_string(),
        };
        DistError::Rendezvous(format!(
            "{what}: rank 0 cannot listen on port {port} (set by {from}); another run may be using \
             it. {WAYS}"
        ))
    })
}

/// The ways to set a port.
const WAYS: &str = "Choose another port with --cfg-options env_cfg.dist_cfg.port=PORT, with \
                    env_cfg.dist_cfg.port in the config, or, where that is not set, with \
                    MASTER_PORT=PORT (torchrun: --master-port; `segslurm dist_train`: PORT=PORT, \
                    or none on one machine for a free one)";

/// What a rank says that came to another run's port.
fn taken(launched: &Launched, what: &str) -> DistError {
    let Launched { port, port_from, .. } = launched;
    DistError::Rendezvous(format!(
        "Address already in use: {what}; port {port} was set by {port_from}. {WAYS}"
    ))
}

/// The addresses of rank 0's machine: as the system resolves its name, else, for a node of Slurm's,
/// as slurmctld knows it. This very node needs no name.
fn resolve(launched: &Launched) -> Result<Vec<SocketAddr>, String> {
    let Launched { address, port, node, .. } = launched;
    if node.as_ref() == Some(address) {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], *port))]);
    }
    let named = (address.as_str(), *port).to_socket_addrs();
    let unknown = match named {
        Ok(addresses) => return Ok(addresses.collect()),
        Err(error) => format!("the name {address} cannot be resolved ({error})"),
    };
    if node.is_none() {
        return Err(unknown);
    }
    let known =
        client::node_address(address).map_err(|error| error.to_string()).and_then(|known| {
            let addresses = (known.as_str(), *port).to_socket_addrs();
            addresses
                .map(Iterator::collect)
                .map_err(|error| format!("NodeAddr={known} does not resolve: {error}"))
        });
    known.map_err(|why| {
        format!(
            "{unknown}, and Slurm does not help ({why}); name rank 0's machine with \
             MASTER_ADDR=ADDRESS"
        )
    })
}

/// Connects to the store's port once, trying until the deadline: gives the address that works, and
/// ours on that way.
fn reach(
    launched: &Launched,
    deadline: Instant,
    patience: Duration,
) -> Result<(SocketAddr, IpAddr), DistError> {
    let (mut last, start) = (String::new(), Instant::now());
    let mut pause = Duration::from_millis(20);
    loop {
        match resolve(launched) {
            // A name that Slurm gave does not become known by waiting.
            Err(error) if launched.node.is_some() && start.elapsed() > UNRESOLVED => {
                return Err(DistError::Rendezvous(error));
            }
            Err(error) => last = error,
            Ok(addresses) => {
                for to in addresses {
                    let left = deadline
                        .saturating_duration_since(Instant::now())
                        .max(Duration::from_millis(100));
                    match TcpStream::connect_timeout(&to, left.min(Duration::from_secs(5))) {
                        Ok(stream) => {
                            let own = stream.local_addr().map(|it| it.ip());
                            return Ok((to, own.unwrap_or(IpAddr::from([127, 0, 0, 1]))));
                        }
                        Err(error) => last = format!("{to} says: {error}"),
                    }
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(DistError::Rendezvous(format!(
                "{} did not arrive within {} s at {}:{}: {last}",
                name(0, launched.hosts.first().map(String::as_str)),
                patience.as_secs_f64(),
                launched.address,
                launched.port
            )));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn announce(
    store: &Store,
    rank: usize,
    arrival: &Arrival,
) -> Result<(), segslurm_native::NativeError> {
    store.set(
        &format!("arrival/{rank}"),
        serde_json::to_string(arrival).unwrap_or_default().as_bytes(),
    )?;
    // Counted, so that two processes with one rank are noticed; last, so that who is counted can be
    // read.
    store.add(&format!("here/{rank}"), 1).map(drop)
}

/// Rank 0 at the head of the table.
struct Gathering<'a> {
    launched: &'a Launched,
    config: &'a DistConfig,
    store: &'a Store,
    deadline: Instant,
    patience: Duration,
}

impl Gathering<'_> {
    /// Waits for all, decides, and tells. The listener is the lifeline's.
    fn decide(&self) -> Result<(Roster, Option<TcpListener>), segslurm_native::NativeError> {
        let world = self.launched.world;
        let arrivals = self.arrivals()?;
        let mut roster =
            Roster { error: None, arrivals: Vec::new(), backend: Backend::Gloo, lifeline: 0 };
        let mut listener = None;
        match self.judge(&arrivals)? {
            Err(error) => roster.error = Some(error),
            Ok(backend) => {
                roster.backend = backend;
                let any = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
                match any.and_then(|it| Ok((it.local_addr()?.port(), it))) {
                    Ok((port, bound)) => (roster.lifeline, listener) = (port, Some(bound)),
                    Err(error) => {
                        roster.error = Some(format!("rank 0 cannot listen on any port: {error}"));
                    }
                }
            }
        }
        roster.arrivals = arrivals.iter().flatten().cloned().collect();
        self.store.set("word", serde_json::to_string(&roster).unwrap_or_default().as_bytes())?;
        if roster.error.is_some() {
            // The store dies with this process: a moment for those who came to read it.
            let others = arrivals.iter().skip(1).flatten().count().min(world) as i64;
            let end = Instant::now() + Duration::from_secs(5);
            while self.store.add("heard", 0)? < others && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok((roster, listener))
    }

    /// Those who came, in order of rank.
    fn arrivals(&self) -> Result<Vec<Option<Arrival>>, segslurm_native::NativeError> {
        let mut arrivals: Vec<Option<Arrival>> = vec![None; self.launched.world];
        let mut pause = Duration::from_millis(2);
        loop {
            for (rank, place) in arrivals.iter_mut().enumerate().filter(|(_, it)| it.is_none()) {
                if self.store.has(&format!("here/{rank}"))? {
                    let bytes =
                        self.store.get(&format!("arrival/{rank}"), Duration::from_secs(5))?;
                    *place = serde_json::from_slice(&bytes).ok();
                }
            }
            if arrivals.iter().all(Option::is_some) || Instant::now() >= self.deadline {
                return Ok(arrivals);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn judge(
        &self,
        arrivals: &[Option<Arrival>],
    ) -> Result<Result<Backend, String>, segslurm_native::NativeError> {
        let Launched { world, address, port, .. } = self.launched;
        let missing: Vec<usize> = (0..*world).filter(|&rank| arrivals[rank].is_none()).collect();
        if !missing.is_empty() {
            let names: Vec<String> =
                missing.iter().map(|&rank| name(rank, self.host_of(rank, arrivals))).collect();
            let seconds = self.patience.as_secs_f64();
            return Ok(Err(format!(
                "{} did not arrive within {seconds} s at {address}:{port}",
                names.join(", ")
            )));
        }
        for rank in 0..*world {
            if self.store.add(&format!("here/{rank}"), 0)? > 1 {
                return Ok(Err(format!(
                    "two processes came to {address}:{port} as rank {rank}: give each its own \
                     RANK, or each run its own port"
                )));
            }
        }
        for (rank, arrival) in arrivals.iter().enumerate() {
            if let Some(arrival) = arrival.as_ref().filter(|it| it.world != *world) {
                return Ok(Err(format!(
                    "the ranks disagree about the world size: rank 0 says {world}, {} says {}",
                    name(rank, Some(&arrival.host)),
                    arrival.world
                )));
            }
        }
        let troubles: Vec<(usize, &str)> = arrivals
            .iter()
            .enumerate()
            .filter_map(|(rank, it)| Some((rank, it.as_ref()?.trouble.as_deref()?)))
            .collect();
        if let Some(&(rank, trouble)) = troubles.first() {
            let more = troubles.len() - 1;
            let others = if more == 0 {
                String::new()
            } else {
                format!(" (and {more} more of {world} ranks)")
            };
            return Ok(Err(format!(
                "{}{others}: {trouble}",
                name(rank, self.host_of(rank, arrivals))
            )));
        }
        let without: Vec<usize> =
            (0..*world).filter(|&rank| !arrivals[rank].as_ref().is_some_and(|it| it.gpu)).collect();
        Ok(match self.config.backend {
            Some(Backend::Gloo) => Ok(Backend::Gloo),
            None => Ok(if without.is_empty() && cuda::is_built() {
                Backend::Nccl
            } else {
                Backend::Gloo
            }),
            Some(Backend::Nccl) if !cuda::is_built() => {
                Err("env_cfg.dist_cfg.backend is nccl, but this segslurm is linked against \
                     libtorch's CPU build; set it to gloo (--cfg-options \
                     env_cfg.dist_cfg.backend=gloo), or build with `make build CUDA=1`"
                    .to_owned())
            }
            Some(Backend::Nccl) => match without.first() {
                None => Ok(Backend::Nccl),
                Some(&rank) => Err(format!(
                    "env_cfg.dist_cfg.backend is nccl, but {} has no GPU of its own; set it to \
                     gloo (--cfg-options env_cfg.dist_cfg.backend=gloo), or start as many ranks a \
                     machine as it has GPUs",
                    name(rank, self.host_of(rank, arrivals))
                )),
            },
        })
    }

    /// The machine of a rank: as it said, as the launcher said, or that of its neighbours where
    /// every machine has as many.
    fn host_of<'b>(&'b self, rank: usize, arrivals: &'b [Option<Arrival>]) -> Option<&'b str> {
        let said = arrivals[rank].as_ref().map(|it| it.host.as_str());
        said.or_else(|| self.launched.hosts.get(rank).map(String::as_str)).or_else(|| {
            let size = self.launched.local_world;
            let first = rank / size * size;
            let neighbours = arrivals.get(first..(first + size).min(arrivals.len()))?;
            (size < self.launched.world || neighbours.len() == arrivals.len())
                .then(|| neighbours.iter().flatten().next().map(|it| it.host.as_str()))?
        })
    }
}

/// The address that each rank can be reached at by all. A rank on rank 0's machine came over
/// loopback; if others did not, it takes the address it has towards them.
fn outward(arrivals: &[Arrival]) -> Vec<IpAddr> {
    let far = arrivals.iter().map(|it| it.address).find(|it| !it.is_loopback());
    let towards = |far: IpAddr| own_address(SocketAddr::new(far, 9)).unwrap_or(far);
    let resolved = |arrival: &Arrival| match far {
        // Only asked of the own machine: every rank uses its own entry alone.
        Some(far) if arrival.address.is_loopback() => towards(far),
        _ => arrival.address,
    };
    arrivals.iter().map(resolved).collect()
}

/// Where this rank finds rank 0: on the same machine over loopback, else where rank 0 told, or
/// where the store is.
fn reachable(arrivals: &[Arrival], rank: usize) -> IpAddr {
    let (zero, own) = (&arrivals[0], &arrivals[rank]);
    if own.address.is_loopback() || own.host == zero.host && own.address == zero.address {
        own.address
    } else {
        zero.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_another_world_is_refused() {
        let arrival = r#"{"host":"n1","address":"127.0.0.1","world":1,"gpu":false}"#;
        let roster = |arrivals: &str, error: &str| {
            format!(r#"{{"error":{error},"arrivals":[{arrivals}],"backend":"gloo","lifeline":1}}"#)
        };
        let read = |text: String| Roster::read(text.as_bytes(), 2);
        assert_eq!(
            read(roster(arrival, "null")).expect_err("one of two"),
            "it speaks of 1 ranks, and 2 are to come"
        );
        assert!(read(roster(&[arrival, arrival].join(","), "null")).is_ok());
        assert!(
            read(roster("", "\"rank 1 did not arrive\"")).is_ok(),
            "why nobody starts is told to those who came"
        );
    }
}
