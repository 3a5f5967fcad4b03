//! The program itself, from outside: exit codes, messages, help texts, what it prints and what it hides.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// What a run of the program came to.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs the program with `arguments` and `environment` and nothing else that could set anything.
fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_inferq"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, &[])
}

/// One line `error: ...`, one `help: ...`, nothing on standard output.
fn assert_fails(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(matches!(lines.as_slice(), [error, help] if error.starts_with("error: ") && help.starts_with("help: ")));
    for part in parts {
        assert!(ran.stderr.contains(part), "{part:?} is missing in {}", ran.stderr);
    }
}

#[test]
fn the_help_of_every_command_is_as_reviewed() {
    let commands: &[(&str, &[&str])] = &[
        ("help_inferq", &[]),
        ("help_worker", &["worker"]),
        ("help_submit", &["submit"]),
        ("help_demo", &["demo"]),
        ("help_bench", &["bench"]),
        ("help_keys_generate", &["keys", "generate"]),
        ("help_keys_list", &["keys", "list"]),
        ("help_keys_check", &["keys", "check"]),
        ("help_keys_rotate", &["keys", "rotate"]),
        ("help_keys_revoke", &["keys", "revoke"]),
        ("help_keys_export", &["keys", "export"]),
        ("help_models_list", &["models", "list"]),
        ("help_models_show", &["models", "show"]),
        ("help_models_check", &["models", "check"]),
        ("help_models_add", &["models", "add"]),
        ("help_models_alias", &["models", "alias"]),
        ("help_models_rollback", &["models", "rollback"]),
        ("help_models_optimize", &["models", "optimize"]),
        ("help_models_evaluate", &["models", "evaluate"]),
        ("help_config_check", &["config", "check"]),
        ("help_topology_show", &["topology", "show"]),
        ("help_topology_apply", &["topology", "apply"]),
        ("help_health", &["health"]),
    ];
    for (snapshot, command) in commands {
        let ran = run(&[command, &["--help"][..]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command:?}");
        insta::assert_snapshot!(*snapshot, ran.stdout);
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [&["no-such-command"][..], &["keys", "generate"], &["--set", "novalue", "config", "check"], &[]] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let ran = run_with(&["config", "check"], &[("INFERQ__BROKER__PREFECH", "9")]);
    assert_fails(&ran, 3, &["`broker.prefech`", "`INFERQ__BROKER__PREFECH`", "did you mean `broker.prefetch`?"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.toml");
    std::fs::write(&path, "[limits]\nmax_row = 3\n").unwrap();
    let ran = run(&["--config", path.to_str().unwrap(), "config", "check"]);
    assert_fails(&ran, 3, &["`limits.max_row`", "worker.toml", "did you mean `limits.max_rows`?"]);
}

#[test]
fn a_value_out_of_bounds_is_named_with_its_bound() {
    let ran = run(&["config", "check", "--set", "broker.prefetch=2001"]);
    assert_fails(&ran, 3, &["`broker.prefetch` is 2001", "from 1 to 2000"]);
}

#[test]
fn a_missing_settings_file_is_named() {
    let ran = run_with(&["config", "check"], &[("INFERQ_CONFIG", "no/such.toml")]);
    assert_fails(&ran, 3, &["`no/such.toml`", "--config or INFERQ_CONFIG"]);
}

#[test]
fn the_check_tells_every_origin_and_hides_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.toml");
    std::fs::write(&path, "[batching]\nexecutors = 5\n").unwrap();
    let arguments = ["config", "check", "--json", "--set", "limits.max_rows=9", "--config", path.to_str().unwrap()];
    let ran = run_with(&arguments, &[("INFERQ_AMQP_URL", "amqps://me:s3cret@rabbit:5672/v")]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(!ran.stdout.contains("s3cret"));
    let list = ran.json();
    let entry = |key: &str| list.as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap().clone();
    assert_eq!(entry("broker.url")["value"], "amqps://me:***@rabbit:5672/v");
    assert_eq!(entry("broker.url")["origin"], "variable `INFERQ_AMQP_URL`");
    assert_eq!(entry("batching.executors")["value"], 5);
    assert_eq!(entry("batching.executors")["origin"], format!("file `{}`", path.display()));
    assert_eq!(entry("limits.max_rows")["origin"], "option `--set`");
    assert_eq!(entry("broker.prefetch")["origin"], "the defaults");

    let ran = run_with(&arguments[..2], &[("INFERQ_AMQP_URL", "amqps://me:s3cret@rabbit:5672/v")]);
    assert!(ran.stdout.contains("amqps://me:***@rabbit:5672/v") && !ran.stdout.contains("s3cret"), "{}", ran.stdout);
}

#[test]
fn keys_are_changed_handed_over_and_revoked_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("ring");
    let directory = ring.to_str().unwrap();
    let keys = |arguments: &[&str]| run(&[&["keys"], arguments, &["--directory", directory]].concat());
    keys(&["generate", "--tenant", "acme"]);
    let ran = keys(&["rotate", "--tenant", "acme", "--activate"]);
    assert_fails(&ran, 1, &["there is no", "request-next.jwk"]);
    let made = keys(&["rotate", "--tenant", "acme", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let handover = folder.path().join("handover");
    let exported = keys(&["export", "--tenant", "acme", "--to", handover.to_str().unwrap(), "--json"]);
    let exported: serde_json::Value = serde_json::from_str(&exported.stdout).unwrap();
    assert_eq!(exported["request_key"], made["next_request_key"]);
    assert_eq!(exported["response_keys"].as_array().unwrap().len(), 2);
    let old = keys(&["rotate", "--tenant", "acme", "--activate", "--old-expires-s", "60", "--json"]);
    let old: serde_json::Value = serde_json::from_str(&old.stdout).unwrap();
    let revoked = keys(&["revoke", "--tenant", "acme", "--key", old["old_request_key"].as_str().unwrap()]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    let checked = keys(&["check", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(checked, serde_json::json!({ "tenants": 1, "keys": 4, "refused": 1 }));
    let ran = keys(&["revoke", "--tenant", "acme", "--key", exported["response_keys"][0].as_str().unwrap()]);
    let other = keys(&["revoke", "--tenant", "acme", "--key", exported["response_keys"][1].as_str().unwrap()]);
    assert_eq!(ran.code.min(other.code), 0, "the old key of replies may be revoked");
    assert_eq!(ran.code.max(other.code), 1, "the one that seals them may not");
}

#[test]
fn keys_are_made_private_listed_without_material_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let generate = ["keys", "generate", "--tenant", "acme", "--model", "topic", "--directory", directory, "--json"];
    let made = run(&generate);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    let made = made.json();
    assert_eq!(made["models"], serde_json::json!(["topic"]));
    assert_eq!(made["reply_prefix"], "acme.");

    let mut secrets = Vec::new();
    for file in ["request.jwk", "response.jwk"] {
        let path = folder.path().join("acme").join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        let key: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        secrets.push(key["k"].as_str().unwrap().to_owned());
    }

    let listed = run(&["keys", "list", "--directory", directory, "--json"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let ids: Vec<_> = listed.json().as_array().unwrap().iter().map(|key| key["key_id"].clone()).collect();
    assert_eq!(ids, [made["request_key"].clone(), made["response_key"].clone()]);
    let table = run_with(&["keys", "list"], &[("INFERQ__KEYS__DIRECTORY", directory)]);
    assert!(table.stdout.starts_with("TENANT ") && table.stdout.contains("acme.req."), "{}", table.stdout);
    for secret in &secrets {
        assert!(!listed.stdout.contains(secret) && !table.stdout.contains(secret));
    }

    let before = std::fs::read(folder.path().join("acme/request.jwk")).unwrap();
    assert_fails(&run(&generate), 1, &["`acme`", "not overwritten"]);
    assert_eq!(std::fs::read(folder.path().join("acme/request.jwk")).unwrap(), before);
}

#[test]
fn a_key_ring_that_cannot_be_used_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    run(&["keys", "generate", "--tenant", "acme", "--directory", directory]);
    let key = folder.path().join("acme/request.jwk");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(&["keys", "list", "--directory", directory]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("request.jwk") && ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    assert_fails(&run(&["keys", "list", "--directory", "nowhere"]), 3, &["`nowhere`"]);
}

/// A repository with one model, described and not there: no command but the worker loads any.
fn write_model(directory: &Path) {
    let folder = directory.join("tiny/2");
    std::fs::create_dir_all(&folder).unwrap();
    let digest = "0".repeat(64);
    let spec = format!(
        "name = \"tiny\"\nversion = 2\ndescription = \"adds\"\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\n\
         batch_scope = \"shared\"\n[preprocess]\nkind = \"tensor\"\n[[inputs]]\nname = \"x\"\ndatatype = \"FP32\"\n\
         shape = [-1, 3]\n[[outputs]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [-1, 1]\n[postprocess]\nkind = \"raw\"\n"
    );
    std::fs::write(folder.join("model.toml"), spec).unwrap();
}

#[test]
fn models_are_listed_and_shown_without_being_loaded() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let environment = [("INFERQ__MODELS__DIRECTORY", folder.path().to_str().unwrap())];
    let listed = run_with(&["models", "list", "--json"], &environment);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    let models = listed.json();
    assert_eq!((&models[0]["name"], &models[0]["version"]), (&"tiny".into(), &2.into()));
    let shown = run_with(&["models", "show", "tiny"], &environment);
    assert!(shown.stdout.contains("x FP32 [rows, 3]") && shown.stdout.contains("tiny:2"), "{}", shown.stdout);
    let missing = run_with(&["models", "show", "tiny:3"], &environment);
    assert_fails(&missing, 1, &["`tiny:3`", "inferq models list"]);
    assert_eq!(run_with(&["models", "show", "ti/ny"], &environment).code, 2);
    assert_eq!(run(&["models", "list", "--directory", "nowhere"]).code, 3);
}

#[test]
fn a_model_is_shown_with_what_a_request_holds_and_what_comes_back() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let shown = run(&["models", "show", "topic", "--directory", shipped]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    for line in [
        "takes          text BYTES [rows]: at most 262144 bytes each, of which the first 128 tokens count\n",
        "outputs        label, probabilities, logits\n",
        "labels         computers, recreation, science, politics, religion\n",
    ] {
        assert!(shown.stdout.contains(line), "{line:?} is missing in {}", shown.stdout);
    }
    let json = run(&["models", "show", "topic", "--directory", shipped, "--json"]).json();
    let input = serde_json::json!({"name": "text", "datatype": "BYTES", "shape": [-1]});
    assert_eq!(json["request_inputs"], serde_json::json!([input]));
    assert_eq!(json["response_outputs"], serde_json::json!(["label", "probabilities", "logits"]));
    assert_eq!(json["labels"][4], "religion");
    assert_eq!(json["name"], "topic");
}

#[test]
fn checking_models_loads_them_and_names_the_one_that_a_worker_would_refuse() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let sound = run(&["models", "check", "--directory", shipped, "--set", "models.serve=topic"]);
    assert_eq!((sound.code, sound.stderr.as_str()), (0, ""));
    assert!(sound.stdout.starts_with("topic:1 is sound"), "{}", sound.stdout);

    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let ran = run(&["models", "check", "--directory", folder.path().to_str().unwrap()]);
    assert_fails(&ran, 3, &["model.onnx"]);
}

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

/// The first `count` posts of the sample, as a file in `folder`.
fn posts(folder: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(format!("{SHIPPED}/topic/samples/posts.jsonl")).unwrap();
    let path = folder.join("posts.jsonl");
    std::fs::write(&path, text.lines().take(count).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_evaluation_is_told_as_a_table_as_json_and_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let data = posts(folder.path(), 60);
    let page = folder.path().join("report.html");
    let asked = ["models", "evaluate", "--model", "topic:1", "--data", &data, "--directory", SHIPPED];
    let json = run(&[&asked[..], &["--json", "--html", page.to_str().unwrap()]].concat());
    assert_eq!(json.code, 0, "{}", json.stderr);
    let told = json.json();
    let (accuracy, macro_f1) = (told["accuracy"].as_f64().unwrap(), told["macro_f1"].as_f64().unwrap());
    assert!((0.85..1.0).contains(&accuracy) && (0.8..1.0).contains(&macro_f1), "{accuracy} {macro_f1}");
    assert_eq!((&told["model"], &told["texts"]), (&"topic:1".into(), &60.into()));
    let cells: u64 = told["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(cells, 60);
    let right: u64 = (0..5).map(|class| told["confusion"][class][class].as_u64().unwrap()).sum();
    assert!((accuracy - right as f64 / 60.0).abs() < 1e-9, "accuracy is the diagonal's share");

    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && html.contains(&format!("{accuracy:.4}")), "{html}");
    assert!(!html.contains("src=") && !html.contains("href="), "the page is complete in itself");

    let table = run(&asked);
    assert!(table.stdout.contains(&format!("accuracy     {accuracy:.4}")), "{}", table.stdout);
    assert!(table.stdout.contains("\nreligion "), "{}", table.stdout);
}

#[test]
fn two_versions_are_compared_on_the_same_texts() {
    let folder = tempfile::tempdir().unwrap();
    let data = posts(folder.path(), 60);
    // The second version reads the first word of a text alone, and is told by no golden answers.
    for version in ["1", "2"] {
        let copy = folder.path().join("models/topic").join(version);
        std::fs::create_dir_all(&copy).unwrap();
        for file in ["model.onnx", "tokenizer.json", "labels.txt"] {
            std::fs::copy(format!("{SHIPPED}/topic/1/{file}"), copy.join(file)).unwrap();
        }
        let spec = std::fs::read_to_string(format!("{SHIPPED}/topic/1/model.toml")).unwrap();
        let spec = spec.replace("version = 1", &format!("version = {version}"));
        let spec = if version == "2" { spec.replace("max_tokens = 128", "max_tokens = 1") } else { spec };
        std::fs::write(copy.join("model.toml"), spec).unwrap();
    }
    let models = folder.path().join("models");
    let asked = ["models", "evaluate", "--model", "topic", "--compare", "1", "--data", &data, "-q", "--directory"];
    let asked = [&asked[..], &[models.to_str().unwrap()]].concat();
    let told = run(&[&asked[..], &["--json"]].concat()).json();
    let comparison = &told["comparison"];
    assert_eq!((&told["model"], &told["compared_with"]["model"]), (&"topic:2".into(), &"topic:1".into()));
    assert_eq!((&comparison["first"], &comparison["second"]), (&"topic:1".into(), &"topic:2".into()));
    let difference = told["accuracy"].as_f64().unwrap() - told["compared_with"]["accuracy"].as_f64().unwrap();
    assert!(difference < -0.1, "one token tells less than 128: {difference}");
    assert!((comparison["accuracy_difference"].as_f64().unwrap() - difference).abs() < 1e-9);
    assert!(comparison["mcnemar_p"].as_f64().unwrap() < 0.05, "{comparison}");
    let differences = comparison["differences"].as_array().unwrap();
    assert!(differences.iter().all(|one| one["first"] != one["second"] && one["text"].is_string()));
    let table = run(&asked);
    assert!(table.stdout.contains("topic:2 minus topic:1") && table.stdout.contains("McNemar"), "{}", table.stdout);
}

#[test]
fn a_model_is_added_with_what_its_file_says_and_is_then_sound() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let directory = models.to_str().unwrap();
    let file = |name: &str| format!("{SHIPPED}/topic/1/{name}");
    let (onnx, labels, tokenizer, golden) =
        (file("model.onnx"), file("labels.txt"), file("tokenizer.json"), file("golden.json"));
    let add = ["models", "add", &onnx, "--name", "topic", "--directory", directory, "--json"];
    let as_texts = ["--labels", &labels, "--tokenizer", &tokenizer];
    let first = run(&[&add[..], &as_texts, &["--golden", &golden]].concat());
    assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{}", first.stdout);
    let told = first.json();
    assert_eq!(
        (&told["graph"]["opset"], &told["spec"]["version"], &told["golden_is_own"]),
        (&17.into(), &1.into(), &false.into())
    );
    assert_eq!(
        (&told["spec"]["postprocess"]["activation"], &told["spec"]["inputs"][0]["name"]),
        (&"softmax".into(), &"input_ids".into())
    );
    assert!(told["sampled"]["row_in_batch_ms"].is_number(), "{told}");

    // The next one is version 2, with answers of its own, and is not put in the place of the first.
    let second = run(&[&add[..], &as_texts].concat());
    assert_eq!((&second.json()["spec"]["version"], &second.json()["golden_is_own"]), (&2.into(), &true.into()));
    assert_fails(&run(&[&add[..], &["--version", "1"]].concat()), 3, &["topic/1`", "never overwritten"]);
    let raw = run(&[
        "models",
        "add",
        &format!("{SHIPPED}/identity/1/model.onnx"),
        "--name",
        "same",
        "--directory",
        directory,
    ]);
    assert!(raw.stdout.starts_with("added   same:1 in "), "{}{}", raw.stdout, raw.stderr);

    let checked = run(&["models", "check", "--directory", directory]);
    assert_eq!(
        (checked.code, checked.stdout.lines().count(), checked.stderr.as_str()),
        (0, 3, ""),
        "{}",
        checked.stdout
    );
    let data = posts(folder.path(), 5);
    let evaluated =
        run(&["models", "evaluate", "--model", "topic:2", "--data", &data, "--directory", directory, "--json"]);
    assert_eq!(evaluated.json()["model"], "topic:2");

    // What was kept finds a later change; all that is wrong is told at once.
    let kept = models.join("same/1/golden.json");
    let changed = std::fs::read_to_string(&kept).unwrap().replace("\"y\":[", "\"y\":[9.5,");
    std::fs::write(&kept, changed).unwrap();
    std::fs::remove_file(models.join("topic/2/tokenizer.json")).unwrap();
    let checked = run(&["models", "check", "--directory", directory]);
    assert_eq!(checked.code, 3);
    for part in ["refuse 2 versions", "`same` version 1 does not answer", "tokenizer.json"] {
        assert!(checked.stderr.contains(part), "{}", checked.stderr);
    }
    let left: Vec<_> = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing but the two models is left: {left:?}");
}

#[test]
fn aliases_are_set_shown_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let directory = folder.path().to_str().unwrap();
    let alias = |more: &[&str]| run(&[&["models", "alias", "tiny", "--directory", directory], more].concat());
    assert!(alias(&[]).stdout.contains("100.0% of the jobs without a version go to the highest, 2"));
    assert!(alias(&["stable=2"]).stdout.contains("stable  2        100.0%"), "{}", alias(&[]).stdout);
    let shown = alias(&["canary=2@0.25"]);
    assert!(
        shown.stdout.contains("canary  2        25.0%") && shown.stdout.contains("stable  2        75.0%"),
        "{}",
        shown.stdout
    );
    let back = run(&["models", "rollback", "tiny", "--directory", directory, "--json"]).json();
    assert_eq!(back["current"], serde_json::json!({"stable": {"version": 2, "share": 0.0}}));
    assert_eq!(alias(&["--remove", "stable", "--json"]).json()["current"], serde_json::json!({}));
    assert_fails(&alias(&["stable=3"]), 2, &["`tiny` has no version 3"]);
    assert_fails(&alias(&["canary=2@1.5"]), 2, &["alias `canary` has share 1.5"]);
    assert_fails(&alias(&["--remove", "canary"]), 2, &["no alias `canary`"]);
    assert_eq!(alias(&["stable"]).code, 2);
    let rollback = || run(&["models", "rollback", "tiny", "--directory", directory]);
    assert_eq!((rollback().code, rollback().code), (0, 0));
    assert_fails(&rollback(), 1, &["nothing to go back to"]);
}

#[test]
fn what_cannot_be_added_is_refused_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let onnx = format!("{SHIPPED}/topic/1/model.onnx");
    let labels = folder.path().join("two.txt");
    std::fs::write(&labels, "a\nb\n").unwrap();
    let wrong = folder.path().join("golden.json");
    let golden = std::fs::read(format!("{SHIPPED}/topic/1/golden.json")).unwrap();
    let mut golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    golden[0]["logits"][0] = (golden[0]["logits"][0].as_f64().unwrap() + 0.02).into();
    std::fs::write(&wrong, golden.to_string()).unwrap();
    let tokenizer = format!("{SHIPPED}/topic/1/tokenizer.json");
    let add = |file: &str, more: &[&str]| {
        run(&[&["models", "add", file, "--name", "m", "--directory", directory], more].concat())
    };
    let two = labels.to_str().unwrap();
    assert_fails(&add(two, &[]), 3, &["two.txt` is no ONNX file"]);
    assert_fails(&add("no/such.onnx", &[]), 3, &["no/such.onnx"]);
    assert_fails(&add(&onnx, &["--labels", two]), 3, &["has 2 labels, output `logits` has 5 classes"]);
    let texts = ["--tokenizer", &tokenizer, "--golden", wrong.to_str().unwrap()];
    assert_fails(&add(&onnx, &texts), 3, &["does not answer as golden.json says"]);
    assert_fails(
        &add(&format!("{SHIPPED}/identity/1/model.onnx"), &["--tokenizer", &tokenizer]),
        3,
        &["a tokenizer is of no use"],
    );
    assert_fails(
        &run(&["models", "add", &onnx, "--name", "../m", "--directory", directory]),
        2,
        &["`../m` is no name"],
    );
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing but the two files of this test is left: {left:?}");
}

#[test]
fn what_cannot_be_evaluated_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bad = write("bad.jsonl", "{\"text\": \"orbit\", \"label\": \"science\"}\n{\"text\": 3}\nno\n");
    let foreign = write("foreign.jsonl", "{\"text\": \"orbit\", \"label\": \"space\"}\n");
    let wordless = write(
        "wordless.jsonl",
        "{\"text\": \"orbit\", \"label\": \"science\"}\n{\"text\": \"42\", \"label\": \"science\"}\n",
    );
    let evaluate = |model: &str, data: &str| {
        run(&["models", "evaluate", "--model", model, "--data", data, "--json", "--directory", SHIPPED])
    };
    assert_fails(
        &evaluate("topic", &bad),
        2,
        &["bad.jsonl", "line 2 has a `text` that is no string", "line 3 is no JSON"],
    );
    assert_fails(&evaluate("topic", &foreign), 2, &["line 1 has the label `space`", "computers, recreation"]);
    assert_fails(&evaluate("topic", "no/such.jsonl"), 2, &["no/such.jsonl"]);
    assert_fails(&evaluate("topic:9", &wordless), 3, &["no model `topic:9`"]);
    assert_fails(&evaluate("identity", &wordless), 3, &["`identity` is no classifier of texts"]);
    let told = evaluate("topic", &wordless).json();
    assert_eq!(
        (&told["accuracy"], &told["errors"]["INVALID_INPUT"], &told["refused"][0]["line"]),
        (&0.5.into(), &1.into(), &2.into())
    );
}

#[test]
fn the_topology_follows_the_models_and_the_prefix() {
    let ran = run(&["topology", "show", "--json", "--model", "topic", "--set", "broker.name_prefix=other"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let queues = ran.json()["queues"].as_array().unwrap().clone();
    assert!(queues.iter().any(|queue| queue["name"] == "other.jobs.topic"), "{}", ran.stdout);
    let table = run_with(&["topology", "show"], &[("INFERQ__MODELS__SERVE", "topic")]);
    assert!(table.stdout.contains("inferq.jobs.topic") && table.stdout.contains("x-queue-type=quorum"));
    assert_eq!(run(&["topology", "show"]).code, 3, "no model is named and there is no repository");
}

#[test]
fn a_broker_that_does_not_answer_is_exit_code_4_and_its_password_is_not_told() {
    let url = format!("amqp://me:s3cret@127.0.0.1:{}/%2f", free_port());
    let ran = run_with(&["topology", "apply", "--model", "topic"], &[("INFERQ_AMQP_URL", &url)]);
    assert_fails(&ran, 4, &["no broker answers at", "broker.url"]);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn the_health_of_a_worker_that_is_not_there_is_exit_code_1() {
    let address = format!("127.0.0.1:{}", free_port());
    assert_fails(&run(&["health", "--address", &address]), 1, &["no worker answers at", &address]);
    assert_fails(&run(&["health", "--set", "telemetry.listen="]), 3, &["`telemetry.listen`"]);
}

/// A port of loopback on which nobody listens: it was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn health_asks_and_believes_what_the_worker_says() {
    use std::io::{Read as _, Write as _};

    for (answer, code, words) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n", 0, "ready"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: draining\n", 1, "not ready: draining"),
        ("NOT HTTP\r\n\r\n", 1, "no worker"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let worker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1_024];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let ran = run(&["health", "--address", &address]);
        assert!(worker.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(words), "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;

    let mut child = Command::new(env!("CARGO_BIN_EXE_inferq"))
        .args(["config", "check"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn no_command_goes_beyond_this_machine_without_tls_unless_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys").display().to_string();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let environment = [
        ("INFERQ_AMQP_URL", "amqp://acme:canary-4711@broker.invalid:5672/%2f"),
        ("INFERQ__KEYS__DIRECTORY", &keys),
        ("INFERQ__MODELS__DIRECTORY", models),
        ("INFERQ__TELEMETRY__LISTEN", ""),
    ];
    // What connects to nothing is not refused.
    assert_eq!(run_with(&["keys", "generate", "--tenant", "acme"], &environment).code, 0);
    let posts = concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/samples/posts.jsonl");
    let commands: &[&[&str]] = &[
        &["config", "check"],
        &["worker", "--quiet"],
        &["submit", "--tenant", "acme", "a text"],
        &["dead-letter", "list", "--model", "topic"],
        &["topology", "apply"],
        &["demo", "--posts", posts],
        &["bench", "--broker", "--texts", posts],
    ];
    for command in commands {
        let ran = run_with(command, &environment);
        assert_eq!(ran.code, 3, "{command:?}: {}", ran.stderr);
        for part in
            ["amqp://acme@broker.invalid:5672 is beyond this machine", "amqps://", "broker.allow_plaintext = true"]
        {
            assert!(ran.stderr.contains(part), "{command:?}: {part:?} is missing in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("4711"), "{command:?}: {}", ran.stderr);
    }
    let allowed = [&environment[..], &[("INFERQ__BROKER__ALLOW_PLAINTEXT", "true")]].concat();
    assert_eq!(run_with(&["config", "check"], &allowed).code, 0);
    // Nobody of that name answers: it has been asked.
    assert_eq!(run_with(&["topology", "apply"], &allowed).code, 4);
}

#[test]
fn a_model_that_would_lose_too_much_is_not_optimised() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let version = models.join("topic/1");
    std::fs::create_dir_all(&version).unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/1")).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, version.join(path.file_name().unwrap())).unwrap();
    }
    let directory = models.to_str().unwrap();
    let half = ["models", "optimize", "topic", "--step", "half", "--directory", directory];
    let ran = run(&[&half[..], &["--max-difference", "1e-7", "--json"]].concat());
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.json()["steps"][0]["verdict"], "refused");
    assert!(
        ran.stderr.contains("no step was kept of topic: half") && ran.stderr.contains("is allowed"),
        "{}",
        ran.stderr
    );
    assert!(!models.join("topic/2").exists());

    // A file of its own goes to a file of its own, and what is there stays.
    let onnx = version.join("model.onnx");
    let smaller = folder.path().join("smaller.onnx");
    let arguments = ["models", "optimize", onnx.to_str().unwrap(), "--step", "fold"];
    assert_fails(&run(&arguments), 2, &["needs --output"]);
    let ran = run(&[&arguments[..], &["--output", smaller.to_str().unwrap()]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("fold") && ran.stdout.contains("written to"), "{}", ran.stdout);
    assert!(smaller.metadata().unwrap().len() < onnx.metadata().unwrap().len());
    let ran = run(&[&arguments[..], &["--output", smaller.to_str().unwrap()]].concat());
    assert_fails(&ran, 2, &["is there already"]);
}
