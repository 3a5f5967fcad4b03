//! The report on a terminal.

use super::summary::{ArmFigures, Judged, Summary};
use crate::cli::failure::Failure;
use crate::cli::output::{print, print_table};

pub(super) fn print_summary(summary: &Summary) -> Result<(), Failure> {
    let run = &summary.run;
    print(&format!(
        "capacity at batch 1   m1 = {:.0} jobs/s, {:.2} ms a row; objective {:.1} ms\n\
         measured              {} blocks of {:.1} s for each arm and load, {} broker, {} executors, {} cores, seed {}\n\n",
        run.m1_jobs_per_s,
        run.row_ms,
        run.objective_ms,
        run.blocks,
        run.block_ms / 1e3,
        run.broker,
        run.executors,
        run.cores,
        run.seed,
    ))?;
    let header =
        ["LOAD", "ARM", "JOBS/S", "P50 MS", "P99 MS", "IN TIME", "BATCH", "FAILED", "P50 : FIRST", "P99 : FIRST"];
    let rows = summary.loads.iter().flat_map(|load| load.arms.iter().map(|arm| row(&load.load, arm)));
    print_table(header, rows)?;
    print(
        "\nIN TIME: the share of jobs with a result within the objective. P50 : FIRST: divided by the first arm's, geometric \
         mean over blocks with its 95% interval;\n* more than the first arm differs from its twin.\n",
    )?;
    for batches in &summary.batches {
        if let Some(fit) = &batches.fit {
            let [t0, t1, t2, t3] = fit.coefficients_ms;
            print(&format!(
                "cost of a batch, {} by {}: {t0:.2} + {t1:.3} b + {t2:.5} b L + {t3:.7} b L^2 ms ({} batches, median error \
                 {:.0}%)\n",
                batches.model,
                batches.arm,
                fit.batches,
                fit.median_error * 100.0
            ))?;
        }
    }
    Ok(())
}

fn row(load: &str, arm: &ArmFigures) -> [String; 10] {
    let latency = |name: &str| arm.latency_ms.get(name).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let ratio = |of: fn(&super::summary::Ratios) -> Option<Judged>| {
        arm.against_first.as_ref().map_or_else(String::new, |ratios| of(ratios).map_or_else(|| "-".to_owned(), judged))
    };
    [
        load.to_owned(),
        arm.arm.clone(),
        format!("{:.0}", arm.jobs_per_s),
        latency("p50"),
        latency("p99"),
        format!("{:.1}%", arm.within_objective * 100.0),
        format!("{:.1}", arm.mean_batch_size),
        arm.failed.values().sum::<u64>().to_string(),
        ratio(|ratios| ratios.p50),
        ratio(|ratios| ratios.p99),
    ]
}

fn judged(judged: Judged) -> String {
    let mark = if judged.beyond_noise == Some(true) { " *" } else { "" };
    format!("{:.2} ({:.2}-{:.2}){mark}", judged.ratio.mean, judged.ratio.low, judged.ratio.high)
}
