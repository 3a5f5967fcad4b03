//! `inferq bench` from outside: short runs, their figures, their page.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the bench with `arguments` in the folder of the project, and nothing else that could set anything.
fn bench(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_inferq"))
        .arg("bench")
        .args(arguments)
        .env_clear()
        .current_dir(ROOT)
        .output()
        .unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn figures(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = bench(arguments);
    assert_eq!(code, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn arms(load: &Value) -> Vec<&str> {
    load["arms"].as_array().unwrap().iter().map(|arm| arm["arm"].as_str().unwrap()).collect()
}

/// Everything got a result, and the figures of it stand in their order.
fn assert_served(load: &Value) {
    for arm in load["arms"].as_array().unwrap() {
        assert!(arm["jobs_per_s"].as_f64().unwrap() > 0.0, "{arm}");
        assert_eq!(arm["failed"], serde_json::json!({}), "{arm}");
        let latency = |name: &str| arm["latency_ms"][name].as_f64().unwrap();
        assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99"), "{arm}");
        assert!(arm["mean_batch_size"].as_f64().unwrap() >= 1.0, "{arm}");
    }
}

#[test]
fn arms_are_measured_against_the_first_and_its_twin() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("bench.html");
    let short = ["--arms", "adaptive,single", "--loads", "1,2", "--blocks", "2", "--block-ms", "300", "--seed", "3"];
    let outputs =
        ["--json", "-", "--html", page.to_str().unwrap(), "--lengths", "8:3,64:1", "--tenants", "2", "--quiet"];
    let found = figures(&[&short[..], &outputs[..]].concat());

    assert_eq!((&found["run"]["seed"], &found["run"]["tenants"]), (&3.into(), &2.into()));
    assert!(found["run"]["m1_jobs_per_s"].as_f64().unwrap() > 0.0 && found["run"]["row_ms"].as_f64().unwrap() > 0.0);
    let loads = found["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2);
    for load in loads {
        assert_eq!(arms(load), ["adaptive", "adaptive (again)", "single"]);
        assert_served(load);
        assert_eq!(load["arms"][0]["against_first"], Value::Null);
        let p50 = &load["arms"][2]["against_first"]["p50"];
        let [mean, low, high] = ["mean", "low", "high"].map(|name| p50[name].as_f64().unwrap());
        assert!(low <= mean && mean <= high && p50["beyond_noise"].is_boolean(), "{p50}");
        assert!((load["arms"][2]["mean_batch_size"].as_f64().unwrap() - 1.0).abs() < 1e-9, "single rows in batches");
    }
    let single = &found["batches"][2];
    assert_eq!((&single["arm"], &single["model"]), (&"single".into(), &"topic".into()));
    let lengths: Vec<u64> =
        single["cells"].as_array().unwrap().iter().map(|cell| cell["length"].as_u64().unwrap()).collect();
    assert!(!lengths.is_empty() && lengths.iter().all(|length| [16, 64].contains(length)), "{lengths:?}");

    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() >= 4, "{page}");
    for foreign in ["http:", "https:", "<script", "<link", "src=", "@import"] {
        assert!(!page.contains(foreign), "the page needs {foreign}");
    }
}

#[test]
fn a_window_of_several_models_goes_through() {
    let window =
        ["--arrivals", "window", "--window", "16", "--arms", "adaptive", "--no-twin", "--models", "topic,identity"];
    let found = figures(&[&window[..], &["--blocks", "1", "--block-ms", "300", "--json", "-", "--quiet"]].concat());
    let loads = found["loads"].as_array().unwrap();
    assert_eq!((loads.len(), arms(&loads[0])), (1, vec!["adaptive"]));
    assert_served(&loads[0]);
    let models: Vec<&Value> = found["batches"].as_array().unwrap().iter().map(|batches| &batches["model"]).collect();
    assert_eq!(models, ["identity", "topic"]);
    assert!(
        found["batches"].as_array().unwrap().iter().all(|batches| !batches["cells"].as_array().unwrap().is_empty())
    );
}

#[test]
fn what_cannot_be_measured_is_named() {
    let fails = |arguments: &[&str], expected: i32, part: &str| {
        let (code, stdout, stderr) = bench(arguments);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{stderr}");
        assert!(stderr.contains(part), "{part:?} is missing in {stderr}");
    };
    fails(&["--arms", "greedy"], 2, "expected adaptive, single, fifo[:TOKENS]");
    fails(&["--lengths", "long"], 2, "expected `texts`, or WORDS[:WEIGHT]");
    fails(&["--loads", "0"], 2, "expected a number above 0");
    fails(&["--models", "weather", "--quiet"], 3, "weather");
    fails(&["--texts", "no-such-file", "--quiet"], 2, "no-such-file");
}
