//! How much of the scorecard is run: the short form, which `cargo test` runs, or the long one, and within which time.
//!
//! `FAULTS_MINUTES` or `FAULTS_N` asks for the long form. A row of it has its share of the minutes that are left, and leaves
//! out what does not fit; the table says how many faults and jobs there were.

use std::time::Duration;

use tokio::time::Instant;

use super::rows::{ROWS, Row};

const JOBS_OF_A_SHORT_ROW: u64 = 120;
const JOBS_OF_A_LONG_ROW: u64 = 20_000;
const MINUTES: u64 = 40;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whether this is the short form: fewer jobs and faults, several rows at once, and no marks for speed.
    pub short: bool,
    /// Jobs of a row.
    pub jobs: usize,
    /// Where faults fall.
    pub seed: u64,
    /// The rows.
    pub rows: Vec<&'static Row>,
    ends: Option<Instant>,
}

impl Plan {
    /// Reads the variables; `names` are parts of names of rows, as `cargo test NAME` gives them.
    pub fn read(names: &[String]) -> Self {
        let minutes = number("FAULTS_MINUTES");
        let jobs = number("FAULTS_N");
        let short = minutes.is_none() && jobs.is_none();
        let most = if short { JOBS_OF_A_SHORT_ROW } else { JOBS_OF_A_LONG_ROW };
        let ends = (!short).then(|| Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(MINUTES)));
        let named = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str()));
        Self {
            short,
            jobs: usize::try_from(jobs.unwrap_or(most)).unwrap(),
            seed: number("FAULTS_SEED").unwrap_or(1),
            rows: chosen().into_iter().filter(named).collect(),
            ends,
        }
    }

    /// How long the row at `place` may go on with new faults: its share of what is left, by weight; all of it for one without
    /// weight, which runs beside the others.
    pub fn pace(&self, place: usize) -> Pace {
        let until = self.ends.map(|ends| {
            let weight = |rows: &[&Row]| rows.iter().map(|row| row.weight).sum::<u32>();
            let left = ends.saturating_duration_since(Instant::now());
            if self.rows[place].weight == 0 {
                return ends;
            }
            Instant::now() + left * self.rows[place].weight / weight(&self.rows[place..]).max(1)
        });
        Pace { short: self.short, jobs: self.jobs, until }
    }
}

/// How a row paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Whether this is the short form.
    pub short: bool,
    /// Jobs of the row.
    pub jobs: usize,
    until: Option<Instant>,
}

impl Pace {
    /// One of two, by the form.
    pub fn pick<T>(&self, short: T, long: T) -> T {
        if self.short { short } else { long }
    }

    /// Whether the row's time is up, so that no new fault is begun.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// What is left of the row's time; `short` in the short form.
    pub fn left(&self, short: Duration) -> Duration {
        self.until.map_or(short, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let written = std::env::var_os(name).filter(|written| !written.is_empty())?;
    let parsed = written.to_str().and_then(|text| text.parse().ok());
    Some(parsed.unwrap_or_else(|| panic!("{name} is {}, a whole number was expected", written.display())))
}

/// The rows that `FAULTS_ROWS` names; all unless it is set.
fn chosen() -> Vec<&'static Row> {
    let Some(written) = std::env::var_os("FAULTS_ROWS").filter(|written| !written.is_empty()) else {
        return ROWS.iter().collect();
    };
    let written = written.to_string_lossy().into_owned();
    let wanted: Vec<u32> = written
        .split(',')
        .map(|word| word.trim().parse().unwrap_or_else(|_| panic!("FAULTS_ROWS: `{word}` is no number")))
        .collect();
    let unknown = wanted.iter().find(|number| !ROWS.iter().any(|row| row.number == **number));
    assert!(unknown.is_none(), "FAULTS_ROWS: there is no row {unknown:?}");
    ROWS.iter().filter(|row| wanted.contains(&row.number)).collect()
}
