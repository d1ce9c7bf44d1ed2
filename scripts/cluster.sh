#!/usr/bin/env bash
# A throwaway Slurm cluster on this machine, from Debian's slurm-wlm and munge: real slurmctld, real slurmd's, fake GPUs.
#
#   scripts/cluster.sh up [--dir DIR] [--nodes N] [--while PID]    start it (or find it running), print how to use it
#   scripts/cluster.sh down [--dir DIR]                            end what `up` started there, and nothing else
#
# Everything lies in DIR (default target/cluster): configuration, keys, sockets, logs, process ids. Ports are chosen free.
# `--while PID` ends the cluster by itself when that process is gone. As root, missing packages are installed with apt.
# Exit code 69: Slurm is not here and cannot be installed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command=${1:-}
[ $# -gt 0 ] && shift
dir=$root/target/cluster
nodes=2
while_pid=
while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=$2 ;;
    --nodes) nodes=$2 ;;
    --while) while_pid=$2 ;;
    *) printf 'cluster: unknown option %s\n' "$1" >&2; exit 2 ;;
    esac
    shift 2
done

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() { say "$1"; exit "${2:-70}"; }

# The daemons live in sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin

installed() { command -v slurmctld && command -v slurmd && command -v munged && command -v srun; } >/dev/null 2>&1

install() {
    installed && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "Slurm is not installed: apt-get install slurm-wlm munge (as root)" 69
    fi
    say "installing slurm-wlm and munge"
    # Debian starts the services on installation; a policy that says no keeps this machine as it was.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1
    fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends slurm-wlm munge; } >&2 || true
    [ -z "$made" ] || rm -f $policy
    installed || fail "installing slurm-wlm and munge failed" 69
}

# Process id of daemon $1, if it is the one that we started: its command line names our folder.
alive() {
    local pid
    pid=$(cat "$dir/$1.id" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$dir" && echo "$pid"
}

# start NAME COMMAND…: in the background, in its own session, its process id kept.
start() {
    local name=$1
    shift
    setsid "$@" >"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/$name.id"
}

stop() {
    local pid
    pid=$(alive "$1") || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        [ -e "/proc/$pid" ] || return 0
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
}

daemons() { (cd "$dir" 2>/dev/null && for file in slurmd-*.id slurmctld.id munged.id; do [ -e "$file" ] && echo "${file%.id}"; done) || true; }

free_ports() { # free_ports N: the first of N neighbouring free ports below the ephemeral range
    local first port busy
    for _ in $(seq 200); do
        first=$((10000 + RANDOM % 20000))
        busy=
        for ((port = first; port < first + $1; port++)); do
            (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && busy=1 && break
        done
        [ -n "$busy" ] || { echo "$first"; return; }
    done
    fail "no $1 neighbouring ports are free"
}

ready() { [ "$(SLURM_CONF=$dir/slurm.conf timeout 5 sinfo -h -N -p dev -t idle,mixed,alloc -o %N 2>/dev/null | sort -u | wc -l)" = "$nodes" ]; }

up() {
    install
    if alive slurmctld >/dev/null; then
        nodes=$(cat "$dir/nodes")
        ready && { say "already up in $dir"; usage; return; }
        down
    fi
    [ ${#dir} -le 85 ] || fail "$dir: too long a path for a socket in it; choose another with --dir"
    mkdir -p "$dir"/{state,log}
    echo "$nodes" >"$dir/nodes"
    local gpu
    for gpu in "$dir"/gpu{0..7}; do
        # Slurm sets CUDA_VISIBLE_DEVICES for device files only; /dev/null's numbers do. Only root can make them.
        [ -e "$gpu" ] || mknod -m 666 "$gpu" c 1 3 2>/dev/null || touch "$gpu"
    done
    # munged refuses a key that others may read and a socket that others cannot reach.
    chmod 755 "$dir" "$dir/log"
    [ -e "$dir/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$dir/munge.key")
    local first text
    first=$(free_ports $((nodes + 1)))
    for text in slurm gres; do
        sed -e "s|@DIR@|$dir|g" -e "s|@USER@|$(id -un)|g" -e "s|@NODES@|$nodes|g" -e "s|@CTLD_PORT@|$first|g" \
            -e "s|@FIRST_PORT@|$((first + 1))|g" -e "s|@LAST_PORT@|$((first + nodes))|g" \
            "$root/slurm/test-cluster/$text.conf.in" >"$dir/$text.conf"
    done
    rm -f "$dir/munge.socket"
    start munged munged --foreground --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" --pid-file="$dir/munged.pid" \
        --log-file="$dir/log/munged.log" --seed-file="$dir/munged.seed"
    for _ in $(seq 100); do [ -S "$dir/munge.socket" ] && break; sleep 0.05; done
    [ -S "$dir/munge.socket" ] || fail "munged did not start: $(tail -n 3 "$dir/log/munged.out")"
    start slurmctld slurmctld -D -c -f "$dir/slurm.conf"
    local node
    for ((node = 1; node <= nodes; node++)); do start "slurmd-n$node" slurmd -D -N "n$node" -f "$dir/slurm.conf"; done
    for _ in $(seq 150); do
        if ready; then
            [ -z "$while_pid" ] || watch
            usage
            return
        fi
        sleep 0.1
    done
    tail -n 5 "$dir"/log/*.log >&2 || true
    down
    fail "the nodes did not come up within 15 s (the ends of their logs are above)"
}

watch() { # The cluster ends with the process that asked for it.
    # shellcheck disable=SC2016  # The arguments are the inner shell's.
    setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 0.5; done; exec "$2" down --dir "$3"' \
        - "$while_pid" "${BASH_SOURCE[0]}" "$dir" >/dev/null 2>&1 </dev/null &
}

usage() {
    say "$nodes nodes with 8 GPUs each, partitions dev and short; end it with: $0 down${dir:+ --dir $dir}"
    printf 'export SLURM_CONF=%q\n' "$dir/slurm.conf"
}

down() {
    if [ ! -e "$dir/nodes" ]; then
        say "nothing is up in $dir"
        return
    fi
    if alive slurmctld >/dev/null; then
        export SLURM_CONF=$dir/slurm.conf
        # Running steps have processes of their own, which outlive slurmd: they are ended through Slurm.
        timeout 5 squeue -h -o %A 2>/dev/null | xargs -r timeout 5 scancel 2>/dev/null || true
        timeout 5 squeue -h -o %A 2>/dev/null | xargs -r timeout 5 scancel -s KILL 2>/dev/null || true
        for _ in $(seq 60); do
            [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
            sleep 0.1
        done
    fi
    local name
    for name in $(daemons); do stop "$name"; done
    rm -rf "$dir"
    say "down"
}

case $command in
up) up ;;
down) down ;;
*) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
