//! One TCP connection from every rank to rank 0, kept open for as long as the run: the kernel
//! closes it when a process ends in any way, so a death is known at once and by name, where c10d
//! only sees "connection closed".
//!
//! Rank 0 judges and tells all the others; what it says is the verdict. A rank that waits longer
//! than the timeout asks rank 0 for a roll call first, so that the verdict of a hang says where
//! every rank was. After a verdict the main thread has a few seconds to come back from its
//! collective and say it in its own way; then the process is ended here.
//!
//! Lines on the wire. To rank 0: `rank N`, `bye`, `fail <text>`, `hang`, `at <text>`. From it:
//! `where`, `end <text>`, `bye`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use segslurm_native::collective::exit_now;

use crate::exit::Exit;
use crate::terminal;

/// How often the watching thread looks up.
const POLL: Duration = Duration::from_millis(100);
/// How long the main thread may take to come back with the verdict.
const GRACE: Duration = Duration::from_secs(4);
/// How long ranks may take to answer a roll call.
const ROLL_CALL: Duration = Duration::from_secs(2);

/// What a rank is doing.
#[derive(Debug, Default)]
struct Doing {
    /// The collective that the main thread waits in.
    collective: Option<(String, Instant)>,
    finished: u64,
}

impl Doing {
    fn say(&self) -> String {
        match &self.collective {
            Some((name, since)) => {
                format!(
                    "in {name}, its collective number {}, for {:.0} s",
                    self.finished + 1,
                    since.elapsed().as_secs_f64()
                )
            }
            None => format!("in no collective; it has finished {}", self.finished),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Fail(String),
    Bye,
}

/// What the main thread and the watching thread share.
#[derive(Debug)]
struct Shared {
    rank: usize,
    hosts: Vec<String>,
    timeout: Duration,
    doing: Mutex<Doing>,
    requests: Mutex<Vec<Request>>,
    verdict: Mutex<Option<String>>,
    changed: Condvar,
    /// All ranks have said goodbye, or the watching thread is gone for another reason.
    over: AtomicBool,
    /// The main thread has the verdict in hand, or stops for a reason of its own.
    told: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn name(&self, rank: usize) -> String {
        name(rank, self.hosts.get(rank).map(String::as_str))
    }

    fn judge(&self, verdict: &str) {
        let mut place = locked(&self.verdict);
        if place.is_none() {
            *place = Some(verdict.to_owned());
        }
        self.changed.notify_all();
    }

    fn is_late(&self) -> bool {
        matches!(&locked(&self.doing).collective, Some((_, since)) if since.elapsed() > self.timeout)
    }
}

/// `rank 3 (host n2)`.
pub(super) fn name(rank: usize, host: Option<&str>) -> String {
    match host {
        Some(host) if !host.is_empty() => format!("rank {rank} (host {host})"),
        _ => format!("rank {rank}"),
    }
}

/// This rank's end.
#[derive(Debug)]
pub(super) struct Lifeline {
    shared: Arc<Shared>,
}

impl Lifeline {
    /// Rank 0: accepts the others' connections and starts to watch.
    pub(super) fn serve(
        listener: TcpListener,
        hosts: Vec<String>,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, String> {
        let missing = hosts.len() - 1;
        let shared = Arc::new(Shared::new(0, hosts, timeout));
        let peers = accept(&listener, missing, &shared, Instant::now() + patience)?;
        let watching = Arc::clone(&shared);
        spawn(move || Server { shared: watching, peers, roll_call: None }.watch())?;
        Ok(Self { shared })
    }

    /// The others: connects to rank 0.
    pub(super) fn connect(
        rank: usize,
        to: SocketAddr,
        hosts: Vec<String>,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, String> {
        let shared = Arc::new(Shared::new(rank, hosts, timeout));
        let gone =
            |error: std::io::Error| format!("cannot reach {} at {to}: {error}", shared.name(0));
        let mut stream = TcpStream::connect_timeout(&to, patience).map_err(gone)?;
        writeln!(stream, "rank {rank}").map_err(gone)?;
        let peer = Peer::new(stream).map_err(gone)?;
        let watching = Arc::clone(&shared);
        spawn(move || Client { shared: watching, peer, asked: false }.watch())?;
        Ok(Self { shared })
    }

    /// The main thread enters a collective.
    pub(super) fn enter(&self, collective: &str) {
        locked(&self.shared.doing).collective = Some((collective.to_owned(), Instant::now()));
    }

    /// The main thread comes out of it.
    pub(super) fn leave(&self) {
        let mut doing = locked(&self.shared.doing);
        doing.collective = None;
        doing.finished += 1;
    }

    /// Why a collective failed: the verdict if there is one soon, else libtorch's own words.
    pub(super) fn explain(&self, words: &str) -> String {
        let place = locked(&self.shared.verdict);
        let waited = self.shared.changed.wait_timeout_while(place, GRACE, |it| it.is_none());
        let (place, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.shared.told.store(true, Ordering::Release);
        place.clone().unwrap_or_else(|| words.to_owned())
    }

    /// The verdict, if there is one by now.
    pub(super) fn verdict(&self) -> Option<String> {
        locked(&self.shared.verdict).clone()
    }

    /// Tells the others that this rank stops on an error of its own.
    pub(super) fn fail(&self, message: &str) {
        // It knows already, and ends in its own words and with its own exit code.
        self.shared.told.store(true, Ordering::Release);
        self.request(Request::Fail(message.replace('\n', " ")), Duration::from_secs(1));
    }

    /// Says goodbye and waits until all have.
    pub(super) fn finish(&self) {
        self.request(Request::Bye, self.shared.timeout);
    }

    fn request(&self, request: Request, patience: Duration) {
        locked(&self.shared.requests).push(request);
        let deadline = Instant::now() + patience;
        while !self.shared.over.load(Ordering::Acquire) && Instant::now() < deadline {
            if self.verdict().is_some() {
                // Told by others, or just told to others: a moment for the bytes to leave.
                std::thread::sleep(2 * POLL);
                return;
            }
            std::thread::sleep(POLL / 10);
        }
    }
}

fn spawn(watch: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name("lifeline".into()).spawn(watch);
    thread.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

impl Shared {
    fn new(rank: usize, hosts: Vec<String>, timeout: Duration) -> Self {
        Self {
            rank,
            hosts,
            timeout,
            doing: Mutex::default(),
            requests: Mutex::default(),
            verdict: Mutex::default(),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// After a verdict: the main thread has its chance, then the process ends here.
    fn end(&self) -> ! {
        std::thread::sleep(GRACE);
        if self.told.load(Ordering::Acquire) {
            // It is on its way out; this is for a destructor that waits for ever.
            std::thread::sleep(GRACE);
        } else if let Some(verdict) = &*locked(&self.verdict) {
            terminal::note(format!("error: {verdict}"));
        }
        exit_now(Exit::Unavailable.code())
    }
}

fn accept(
    listener: &TcpListener,
    expected: usize,
    shared: &Shared,
    deadline: Instant,
) -> Result<BTreeMap<usize, Peer>, String> {
    let fault = |error: std::io::Error| format!("the lifeline's socket failed: {error}");
    listener.set_nonblocking(true).map_err(fault)?;
    let (mut peers, mut unknown_peers) = (BTreeMap::new(), Vec::new());
    while peers.len() < expected {
        if let Ok((stream, _)) = listener.accept() {
            unknown_peers.push(Peer::new(stream).map_err(fault)?);
        }
        let mut waiting = Vec::new();
        for mut peer in unknown_peers.drain(..) {
            let lines = peer.read();
            match lines.first().map(|line| Line::parse(line)) {
                // A second one with the same number is nobody of ours, nor is another rank 0.
                Some(Line::Rank(rank))
                    if (1..shared.hosts.len()).contains(&rank) && !peers.contains_key(&rank) =>
                {
                    peers.insert(rank, peer);
                }
                None if !peer.closed => waiting.push(peer),
                _ => {}
            }
        }
        unknown_peers = waiting;
        if Instant::now() > deadline {
            let missing: Vec<String> = (1..shared.hosts.len())
                .filter(|rank| !peers.contains_key(rank))
                .map(|rank| shared.name(rank))
                .collect();
            return Err(format!(
                "{} came, but did not open the lifeline: is a firewall between the machines?",
                missing.join(", ")
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(peers)
}

/// A line on the wire, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Rank(usize),
    Bye,
    Hang,
    Where,
    Fail(String),
    At(String),
    End(String),
    /// What no version of ours says.
    Unknown,
}

impl Line {
    pub(super) fn parse(line: &str) -> Self {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "rank" => text.parse().map_or(Self::Unknown, Self::Rank),
            "bye" => Self::Bye,
            "hang" => Self::Hang,
            "where" => Self::Where,
            "fail" => Self::Fail(text.replace('\u{1}', " ")),
            "at" => Self::At(text.to_owned()),
            "end" => Self::End(text.replace('\u{1}', "\n")),
            _ => Self::Unknown,
        }
    }
}

/// The longest line: the verdict of a hang has a row for every rank. Who sends more without an end
/// is nobody of ours.
const LONGEST: usize = 16 << 20;

/// Bytes, as they come, to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// How much of it is known to have no end of a line.
    searched: usize,
}

impl Lines {
    /// Takes the next bytes; `None` when no line of ours can come any more.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        self.buffer.extend_from_slice(bytes);
        (self.buffer.len() <= LONGEST).then_some(())
    }

    /// The whole lines that have come.
    pub(super) fn take(&mut self) -> Vec<String> {
        let end = self.buffer[self.searched..]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map(|it| self.searched + it);
        let rest = end.map(|end| self.buffer.split_off(end + 1));
        self.searched = rest.as_ref().unwrap_or(&self.buffer).len();
        let Some(rest) = rest else { return Vec::new() };
        let lines = std::mem::replace(&mut self.buffer, rest);
        String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
    }
}

/// One connection, read in lines.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    lines: Lines,
    closed: bool,
    bye: bool,
}

impl Peer {
    fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        // A machine that goes dark sends no end: the kernel asks after 2 s of silence, every
        // second, four times.
        let kept = setsockopt(&stream, sockopt::KeepAlive, &true)
            .and_then(|()| setsockopt(&stream, sockopt::TcpKeepIdle, &2))
            .and_then(|()| setsockopt(&stream, sockopt::TcpKeepInterval, &1))
            .and_then(|()| setsockopt(&stream, sockopt::TcpKeepCount, &4))
            .and_then(|()| setsockopt(&stream, sockopt::TcpUserTimeout, &6000));
        kept.map_err(std::io::Error::from)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, lines: Lines::default(), closed: false, bye: false })
    }

    /// The whole lines that have come.
    fn read(&mut self) -> Vec<String> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.closed = true,
                Ok(n) if self.lines.push(&chunk[..n]).is_none() => break self.closed = true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break self.closed = true,
            }
        }
        self.lines.take()
    }

    /// Lines are short and rare: they fit the socket's buffer, or the peer is as good as gone.
    fn send(&mut self, line: &str) {
        let _ = writeln!(self.stream, "{}", line.replace('\n', "\u{1}"));
    }
}

fn wait(peers: &[&Peer]) {
    let mut fds: Vec<PollFd> = peers
        .iter()
        .filter(|it| !it.closed)
        .map(|it| PollFd::new(it.stream.as_fd(), PollFlags::POLLIN))
        .collect();
    let _ = poll(&mut fds, PollTimeout::from(POLL.as_millis() as u8));
}

/// Rank 0's watch.
struct Server {
    shared: Arc<Shared>,
    peers: BTreeMap<usize, Peer>,
    roll_call: Option<(Instant, BTreeMap<usize, String>)>,
}

impl Server {
    fn watch(mut self) {
        let mut leaving = false;
        loop {
            wait(&self.peers.values().collect::<Vec<_>>());
            for rank in self.peers.keys().copied().collect::<Vec<_>>() {
                self.listen(rank);
            }
            let requests = std::mem::take(&mut *locked(&self.shared.requests));
            for request in requests {
                match request {
                    Request::Bye => leaving = true,
                    Request::Fail(text) => {
                        self.end(&format!("{} failed: {text}", self.shared.name(0)));
                    }
                }
            }
            if self.shared.is_late() {
                self.call_roll();
            }
            self.close_roll();
            if leaving && self.peers.values().all(|it| it.bye) {
                self.peers.values_mut().for_each(|it| it.send("bye"));
                self.shared.over.store(true, Ordering::Release);
                return;
            }
            if locked(&self.shared.verdict).is_some() {
                self.shared.end();
            }
        }
    }

    fn listen(&mut self, rank: usize) {
        let Some(peer) = self.peers.get_mut(&rank) else { return };
        if peer.closed {
            return;
        }
        let lines = peer.read();
        for line in lines {
            match Line::parse(&line) {
                Line::Bye => self.peers.get_mut(&rank).into_iter().for_each(|it| it.bye = true),
                Line::Hang => self.call_roll(),
                Line::Fail(text) => self.end(&format!("{} failed: {text}", self.shared.name(rank))),
                Line::At(text) => {
                    if let Some((_, answers)) = &mut self.roll_call {
                        answers.insert(rank, text);
                    }
                }
                Line::Rank(_) | Line::Where | Line::End(_) | Line::Unknown => {}
            }
        }
        if self.peers.get(&rank).is_some_and(|it| it.closed && !it.bye) {
            let who = self.shared.name(rank);
            self.end(&format!(
                "{who} died: its process or its machine ended without a word; its own log, or the \
                 kernel's (out of memory?), tells more"
            ));
        }
    }

    fn call_roll(&mut self) {
        if self.roll_call.is_none() {
            self.roll_call = Some((Instant::now() + ROLL_CALL, BTreeMap::new()));
            self.peers.values_mut().for_each(|it| it.send("where"));
        }
    }

    fn close_roll(&mut self) {
        let Some((deadline, answers)) = &self.roll_call else { return };
        if answers.len() < self.peers.len() && Instant::now() < *deadline {
            return;
        }
        let mut table =
            vec![format!("  {}: {}", self.shared.name(0), locked(&self.shared.doing).say())];
        for rank in self.peers.keys() {
            let answer = answers
                .get(rank)
                .map_or("does not answer: stopped, or its machine is gone", String::as_str);
            table.push(format!("  {}: {answer}", self.shared.name(*rank)));
        }
        let seconds = self.shared.timeout.as_secs_f64();
        self.end(&format!(
            "a collective did not end within {seconds} s (env_cfg.dist_cfg.timeout). Where the \
             ranks were:\n{}",
            table.join("\n")
        ));
    }

    /// Tells the verdict to all.
    fn end(&mut self, verdict: &str) {
        if locked(&self.shared.verdict).is_none() {
            self.peers.values_mut().for_each(|it| it.send(&format!("end {verdict}")));
            self.shared.judge(verdict);
        }
    }
}

/// The watch of every other rank.
struct Client {
    shared: Arc<Shared>,
    peer: Peer,
    asked: bool,
}

impl Client {
    fn watch(mut self) {
        loop {
            wait(&[&self.peer]);
            for line in self.peer.read() {
                match Line::parse(&line) {
                    Line::Where => {
                        let answer = format!("at {}", locked(&self.shared.doing).say());
                        self.peer.send(&answer);
                    }
                    Line::End(text) => self.shared.judge(&text),
                    Line::Bye => {
                        self.shared.over.store(true, Ordering::Release);
                        return;
                    }
                    Line::Rank(_) | Line::Hang | Line::Fail(_) | Line::At(_) | Line::Unknown => {}
                }
            }
            let requests = std::mem::take(&mut *locked(&self.shared.requests));
            for request in requests {
                match request {
                    Request::Bye => self.peer.send("bye"),
                    Request::Fail(text) => {
                        self.peer.send(&format!("fail {text}"));
                        self.shared.judge(&format!(
                            "{} failed: {text}",
                            self.shared.name(self.shared.rank)
                        ));
                    }
                }
            }
            if self.shared.is_late() && !self.asked {
                self.asked = true;
                self.peer.send("hang");
            }
            if self.peer.closed {
                self.shared.judge(&format!(
                    "{} died: its process or its machine ended without a word",
                    self.shared.name(0)
                ));
            }
            if locked(&self.shared.verdict).is_some() {
                self.shared.end();
            }
        }
    }
}

/// The address to reach `to` from here, as the kernel's routes have it; nothing is sent.
pub(super) fn own_address(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(world: usize) -> Shared {
        Shared::new(0, vec![String::new(); world], Duration::from_mins(1))
    }

    fn caller(to: SocketAddr, says: &str) -> TcpStream {
        let mut stream = TcpStream::connect(to).expect("connects");
        stream.write_all(says.as_bytes()).expect("writes");
        stream
    }

    #[test]
    fn only_ranks_that_are_awaited_are_let_in() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let unknown_peers =
            ["rank 0\n", "rank 3\n", "GET / HTTP/1.1\n", "rank 18446744073709551616\n", "\n"];
        let mut kept: Vec<TcpStream> = unknown_peers.iter().map(|says| caller(to, says)).collect();
        kept.extend(["rank 1\n", "rank 2\nat home\n"].map(|says| caller(to, says)));
        let peers = accept(&listener, 2, &shared(3), Instant::now() + Duration::from_secs(20))
            .expect("both come");
        assert_eq!(peers.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let text = "rank 1\n\nat home\nfail é\u{1}b\nbye\nhan";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut said = Vec::new();
            for part in text.as_bytes().chunks(size) {
                assert!(lines.push(part).is_some());
                said.extend(lines.take().iter().map(|line| Line::parse(line)));
            }
            let fail = Line::Fail("é b".to_owned());
            assert_eq!(
                said,
                [Line::Rank(1), Line::Unknown, Line::At("home".to_owned()), fail, Line::Bye],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_collected_for_ever() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..16).all(|_| lines.push(&chunk).is_some()));
        assert!(lines.push(&chunk).is_none());
    }
}
