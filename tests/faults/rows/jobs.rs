//! Jobs that are spoiled, late, published twice, dead and replayed; and inputs that crash whoever runs them.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use inferq::broker::topology::Names;
use tokio::time::{Instant, sleep, timeout};

use super::{Outcome, finish, mixed};
use crate::ledger::{Kind, PATIENCE};
use crate::report::percentile;
use crate::stand::{MODEL, Stand};
use crate::worker::{WorkerProcess, get};

const POLL: Duration = Duration::from_millis(20);

/// Mixes jobs that no worker can open among the others.
pub async fn spoil_jobs(stand: &mut Stand) -> Outcome {
    let jobs = stand.pace.jobs;
    let odd = jobs.div_ceil(100).max(3);
    among_others(stand, odd, &[Kind::Garbled, Kind::Foreign, Kind::Garbage]).await
}

/// Mixes jobs among the others whose deadline is over.
pub async fn let_jobs_expire(stand: &mut Stand) -> Outcome {
    let odd = stand.pace.jobs.div_ceil(10);
    among_others(stand, odd, &[Kind::Late]).await
}

/// Mixes jobs among the others that are published twice.
pub async fn publish_twice(stand: &mut Stand) -> Outcome {
    let odd = stand.pace.jobs.div_ceil(20);
    among_others(stand, odd, &[Kind::Twice]).await
}

async fn among_others(stand: &mut Stand, odd: usize, kinds: &[Kind]) -> Outcome {
    let kinds = mixed(&mut stand.seeded, stand.pace.jobs, odd, kinds);
    let worker = stand.ready_worker(stand.broker_address()).await;
    stand.ledger.publish_all(kinds).await;
    let mut outcome = finish(stand, worker, Vec::new(), 0).await;
    outcome.faults = odd;
    outcome.demand_no_duplicates();
    outcome
}

/// Ends the replay of dead letters on its way, again and again, and lets the last one come to its end.
pub async fn kill_the_replay(stand: &mut Stand) -> Outcome {
    let kills = stand.pace.pick(3, 20);
    let letters = stand.pace.jobs.min(10_000);
    stand.ledger.publish_dead_burst(letters).await;
    let worker = stand.ready_worker(stand.broker_address()).await;
    let mut killed = 0;
    for number in 0..kills {
        let mut replay = start_replay(stand);
        let share = (letters / (kills + 1)).max(2);
        let until = (number * share).max(stand.ledger.answered()) + 1 + stand.seeded.below(share);
        tokio::select! {
            () = stand.ledger.until_answered(until) => {}
            () = ended(&mut replay) => {}
        }
        killed += usize::from(replay.try_wait().unwrap().is_none());
        replay.kill().unwrap();
        replay.wait().unwrap();
    }
    let mut replay = start_replay(stand);
    ended(&mut replay).await;
    let status = replay.wait().unwrap();
    let mut outcome = finish(stand, worker, Vec::new(), 0).await;
    outcome.faults = killed;
    outcome.demand(status.success(), || format!("the last replay ended with {status}"));
    let duplicates = outcome.account.duplicates;
    outcome.demand(duplicates <= killed, || format!("{duplicates} duplicates after {killed} kills"));
    outcome.demand(killed * 2 >= kills, || format!("only {killed} of {kills} replays were ended on their way"));
    outcome
}

fn start_replay(stand: &Stand) -> std::process::Child {
    let mut command = stand.command(env!("CARGO_BIN_EXE_inferq"));
    command.args(["dead-letter", "replay", "--quiet", "--model", MODEL]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

async fn ended(child: &mut std::process::Child) {
    while child.try_wait().unwrap().is_none() {
        sleep(POLL).await;
    }
}

/// Mixes inputs among the others that make the backend panic or end the process; whatever ends is started again.
pub async fn crash_on_inputs(stand: &mut Stand) -> Outcome {
    const WORKERS: usize = 2;
    const LEAST: f64 = 0.8;
    let jobs = stand.pace.jobs / 2;
    // One job in 1,000, of either kind.
    let odd = jobs.div_ceil(2_000).max(1);
    let kinds = mixed(&mut stand.seeded, jobs, 2 * odd, &[Kind::Panicking, Kind::Aborting]);
    let mut workers: Vec<WorkerProcess> = (0..WORKERS).map(|_| stand.start_misbehaving()).collect();
    for worker in &mut workers {
        timeout(PATIENCE, worker.until_ready()).await.unwrap();
    }
    let began = Instant::now();
    stand.ledger.publish_burst(jobs).await;
    stand.ledger.settle().await;
    let plain = began.elapsed();

    let began = Instant::now();
    let dead = Names::new(&stand.settings.broker.name_prefix).dead_queue(MODEL);
    let crashes = Cell::new(0);
    let settled = async {
        stand.ledger.publish_all(kinds).await;
        stand.ledger.settle().await;
        let (took, answered) = (began.elapsed(), stand.ledger.answered_after(began));
        until_dead(stand, &dead, odd).await;
        until_quiet(&crashes).await;
        (took, answered)
    };
    let (took, answered) = tokio::select! {
        settled = settled => settled,
        () = restart(stand, &mut workers, &crashes) => unreachable!("it goes on for ever"),
    };
    let last = workers.pop().expect("there are several");
    for worker in &mut workers {
        worker.terminate(stand.settings.worker.drain_grace).await;
    }
    let mut outcome = finish(stand, last, Vec::new(), 0).await;
    outcome.faults = 2 * odd;
    let ratio = plain.as_secs_f64() / took.as_secs_f64();
    let crashes = crashes.get();
    let tail = percentile(&answered, 100).saturating_sub(percentile(&answered, 99));
    outcome.measured = format!(
        "{crashes} crashes; {:.0} % of the throughput ({:.1} s instead of {:.1} s, of which {:.1} s for the last 1 % of the replies)",
        ratio * 100.0,
        took.as_secs_f64(),
        plain.as_secs_f64(),
        tail.as_secs_f64(),
    );
    outcome.demand(crashes > 0, || "no process ended".to_owned());
    outcome.demand(stand.pace.short || ratio >= LEAST, || format!("{:.0} % of the throughput", ratio * 100.0));
    outcome
}

/// Waits until the letters of `count` jobs are in the queue `dead`.
async fn until_dead(stand: &Stand, dead: &str, count: usize) {
    let waited = async {
        while stand.ledger.dead_jobs_in(dead).await < count {
            sleep(POLL).await;
        }
    };
    let _either = timeout(3 * PATIENCE, waited).await;
}

/// Waits until no worker has ended for a while: a process can end between the two halves of a job's move to another queue, and
/// the copy it leaves behind ends some more.
async fn until_quiet(crashes: &Cell<usize>) {
    const QUIET: Duration = Duration::from_secs(2);
    let mut seen = None;
    while seen != Some(crashes.get()) {
        seen = Some(crashes.get());
        sleep(QUIET).await;
    }
}

/// Does what a supervisor does: starts a worker again whenever one has ended. Without a pause, which is the supervisor's choice and no
/// matter of the worker's: a pause of two seconds and five restarts a guilty input would be all that the row measures.
async fn restart(stand: &Stand, workers: &mut [WorkerProcess], crashes: &Cell<usize>) {
    loop {
        for worker in workers.iter_mut() {
            if worker.status().is_some_and(|status| status.signal().is_some()) {
                *worker = stand.start_misbehaving();
                crashes.set(crashes.get() + 1);
            }
        }
        sleep(POLL).await;
    }
}

/// Mixes an input among the others whose run never ends; the worker has to say so and to end.
pub async fn hang_on_an_input(stand: &mut Stand) -> Outcome {
    const EXIT_CODE: i32 = 6;
    let jobs = stand.pace.jobs.min(500);
    let kinds = mixed(&mut stand.seeded, jobs, 1, &[Kind::Hanging]);
    let dead = Names::new(&stand.settings.broker.name_prefix).dead_queue(MODEL);
    let mut worker = stand.start_misbehaving();
    timeout(PATIENCE, worker.until_ready()).await.unwrap();
    let mut ends = Vec::new();
    let mut said = 0;
    let serving = async {
        loop {
            let health = worker.health();
            let (status, unhealthy) = tokio::join!(worker.ended(), until_not_alive(health));
            ends.push(status.code());
            said += usize::from(unhealthy);
            worker = stand.start_misbehaving();
        }
    };
    let settled = async {
        stand.ledger.publish_all(kinds).await;
        stand.ledger.settle().await;
        until_dead(stand, &dead, 1).await;
    };
    tokio::select! {
        () = settled => {}
        () = serving => {}
    }
    let mut outcome = finish(stand, worker, Vec::new(), 0).await;
    outcome.faults = 1;
    outcome.measured = format!("{} ends", ends.len());
    let as_told = !ends.is_empty() && ends.iter().all(|code| *code == Some(EXIT_CODE));
    outcome.demand(as_told, || format!("the worker ended with {ends:?}"));
    outcome.demand(said == ends.len(), || format!("/livez failed before {said} of {} ends", ends.len()));
    outcome
}

/// Whether /livez fails before the worker is gone.
async fn until_not_alive(health: std::net::SocketAddr) -> bool {
    let mut was_there = false;
    loop {
        match get(health, "/livez").await {
            Some(answer) if answer.starts_with("HTTP/1.1 503") => return true,
            Some(_) => was_there = true,
            None if was_there => return false,
            None => {}
        }
        sleep(POLL).await;
    }
}
