//! An evaluation on the terminal: figures, classes, who is taken for whom, and how two models differ.

use crate::cli::failure::Failure;
use crate::cli::output::{print, print_rows};
use crate::evaluation::{Comparison, Report};

/// Texts on which two models differ that are shown; the JSON has them all.
const SHOWN_DIFFERENCES: usize = 20;
/// Texts without an answer that are shown.
const SHOWN_REFUSALS: usize = 10;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 60;

pub(super) fn print_scorecard(report: &Report, compared: Option<(&Report, &Comparison)>) -> Result<(), Failure> {
    print_report(report)?;
    let Some((other, comparison)) = compared else { return Ok(()) };
    print("\n")?;
    print_report(other)?;
    print_comparison(comparison)
}

fn print_report(report: &Report) -> Result<(), Failure> {
    let ([low, high], calibration, latency) = (report.accuracy_interval, &report.calibration, &report.latency);
    let lines = [
        ("model", report.model.clone()),
        ("texts", report.texts.to_string()),
        ("accuracy", format!("{:.4}   95%: {low:.4} to {high:.4}", report.accuracy)),
        ("macro F1", format!("{:.4}", report.macro_f1)),
        (
            "calibration",
            format!("ECE {:.4}, Brier {:.4}, log loss {:.4}", calibration.ece, calibration.brier, calibration.log_loss),
        ),
        (
            "latency",
            format!(
                "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, {} at once; a batch of {:.1} runs {:.1} ms",
                latency.p50_ms,
                latency.p90_ms,
                latency.p99_ms,
                latency.window,
                latency.mean_batch_size,
                latency.run_p50_ms
            ),
        ),
        ("took", format!("{:.1} s, {:.0} texts a second", latency.wall_ms / 1e3, latency.texts_per_s)),
    ];
    print(&lines.iter().map(|(name, text)| format!("{name:<13}{text}\n")).collect::<String>())?;
    print("\n")?;
    print_rows(
        &["CLASS", "PRECISION", "RECALL", "F1", "TEXTS", "ANSWERED"],
        report.classes.iter().map(|class| {
            let figures = [class.precision, class.recall, class.f1].map(|figure| format!("{figure:.3}"));
            let counts = [class.support, class.predicted].map(|count| count.to_string());
            [class.label.clone()].into_iter().chain(figures).chain(counts).collect()
        }),
    )?;
    print("\nrows: what the texts are; columns: what the model says\n")?;
    let header: Vec<&str> = std::iter::once("").chain(report.labels.iter().map(String::as_str)).collect();
    print_rows(
        &header,
        report
            .labels
            .iter()
            .zip(&report.confusion)
            .map(|(label, row)| std::iter::once(label.clone()).chain(row.iter().map(usize::to_string)).collect()),
    )?;
    print_refusals(report)
}

fn print_refusals(report: &Report) -> Result<(), Failure> {
    if report.refused.is_empty() {
        return Ok(());
    }
    let codes: Vec<String> = report.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
    print(&format!("\n{} texts were not answered and count as wrong: {}\n", report.refused.len(), codes.join(", ")))?;
    for refused in report.refused.iter().take(SHOWN_REFUSALS) {
        print(&format!("line {}: {}: {}\n", refused.line, refused.code, refused.message))?;
    }
    Ok(())
}

fn print_comparison(comparison: &Comparison) -> Result<(), Failure> {
    let Comparison { first, second, .. } = comparison;
    let [low, high] = comparison.accuracy_difference_interval;
    let [f1_low, f1_high] = comparison.macro_f1_difference_interval;
    print(&format!(
        "\n{second} minus {first}\naccuracy     {:+.4}   95%: {low:+.4} to {high:+.4}\nmacro F1     {:+.4}   95%: \
         {f1_low:+.4} to {f1_high:+.4}\nMcNemar      p = {:.4}: only {second} is right on {} texts, only {first} on {}\n\
         agreement    {:.1}%\n",
        comparison.accuracy_difference,
        comparison.macro_f1_difference,
        comparison.mcnemar_p,
        comparison.only_second_right,
        comparison.only_first_right,
        comparison.agreement * 100.0,
    ))?;
    if comparison.differences.is_empty() {
        return Ok(());
    }
    print("\n")?;
    let said = |label: &Option<String>| label.clone().unwrap_or_else(|| "no answer".to_owned());
    let header = ["LINE", "IS", first.as_str(), second.as_str(), "TEXT"];
    print_rows(
        &header,
        comparison.differences.iter().take(SHOWN_DIFFERENCES).map(|one| {
            let text: String =
                one.text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
            vec![one.line.to_string(), one.label.clone(), said(&one.first), said(&one.second), text]
        }),
    )?;
    let more = comparison.differences.len().saturating_sub(SHOWN_DIFFERENCES);
    if more > 0 { print(&format!("and {more} more; --json has them all\n")) } else { Ok(()) }
}
