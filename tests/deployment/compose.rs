//! docker-compose.yml as compose itself reads it; no engine is needed for that.

use std::process::Command;
use std::time::Duration;

use inferq::settings::{Environment, LoadOptions, Settings};
use serde_json::Value;

use super::{list, one_yaml, root, text};

/// What `docker compose config` answers with these variables set.
fn config(variables: &[(&str, &str)]) -> Result<Value, String> {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    let mut command = if plugin.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    } else {
        Command::new("docker-compose")
    };
    command.current_dir(root()).env_remove("RABBITMQ_PASSWORD").env_remove("GRAFANA_PASSWORD");
    // An empty one, lest an .env of this checkout be read.
    let environment = tempfile::NamedTempFile::new().unwrap();
    command.args(["--file", "docker-compose.yml", "--profile", "dashboards", "--env-file"]);
    command.arg(environment.path()).arg("config");
    let output = command.envs(variables.iter().copied()).output();
    let output = output.unwrap_or_else(|error| panic!("docker-compose: {error}; `make test` installs it"));
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(one_yaml(&String::from_utf8(output.stdout).unwrap()))
}

fn resolved() -> Value {
    config(&[("RABBITMQ_PASSWORD", "pass"), ("GRAFANA_PASSWORD", "word")]).unwrap()
}

fn service<'a>(config: &'a Value, name: &str) -> &'a Value {
    config.pointer(&format!("/services/{name}")).unwrap_or_else(|| panic!("no service {name}"))
}

/// A volume of a service, in the short or the long form: source, target, whether it can be written.
fn mount(volume: &Value) -> (String, String, bool) {
    if let Some(short) = volume.as_str() {
        let parts: Vec<&str> = short.split(':').collect();
        return (parts[0].to_owned(), parts[1].to_owned(), parts.get(2) != Some(&"ro"));
    }
    let writable = volume.get("read_only").and_then(Value::as_bool) != Some(true);
    (text(volume, "/source").to_owned(), text(volume, "/target").to_owned(), writable)
}

/// `40s` or `1m0s`.
fn duration(words: &str) -> Duration {
    let (minutes, rest) = words.split_once('m').unwrap_or(("0", words));
    let seconds: u64 = rest.trim_end_matches('s').parse().unwrap();
    Duration::from_secs(minutes.parse::<u64>().unwrap() * 60 + seconds)
}

#[test]
fn the_file_is_valid_and_has_the_services() {
    let config = resolved();
    let services: Vec<&String> = config["services"].as_object().unwrap().keys().collect();
    assert_eq!(services, ["grafana", "prometheus", "rabbitmq", "worker"]);
    for name in ["grafana", "prometheus"] {
        assert_eq!(list(service(&config, name), "/profiles"), ["dashboards"]);
    }
    for name in ["rabbitmq", "worker"] {
        assert_eq!(service(&config, name).get("profiles"), None, "{name} runs always");
    }
}

#[test]
fn no_password_has_a_default() {
    for (missing, set) in [("RABBITMQ_PASSWORD", "GRAFANA_PASSWORD"), ("GRAFANA_PASSWORD", "RABBITMQ_PASSWORD")] {
        let refusal = config(&[(set, "set")]).unwrap_err();
        assert!(refusal.contains(missing) && refusal.contains("make compose-env"), "{refusal}");
    }
}

#[test]
fn workers_can_be_scaled() {
    let config = resolved();
    let worker = service(&config, "worker");
    // Both would belong to one container alone.
    assert_eq!(worker.get("container_name"), None);
    assert_eq!(worker.get("ports"), None);
    assert_eq!(worker.get("hostname"), None);
}

#[test]
fn a_worker_may_do_nothing_that_it_does_not_need() {
    let config = resolved();
    let worker = service(&config, "worker");
    assert_eq!(worker["read_only"], true);
    assert_eq!(list(worker, "/cap_drop"), ["ALL"]);
    assert_eq!(list(worker, "/security_opt"), ["no-new-privileges:true"]);
    let user = text(worker, "/user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id != 0)), "{user}");
    for volume in list(worker, "/volumes") {
        let (_, target, writable) = mount(volume);
        assert!(!writable, "{target} can be written");
    }
    assert!(worker.pointer("/deploy/resources/limits/memory").is_some());
    assert!(worker.pointer("/deploy/resources/limits/cpus").is_some());
}

#[test]
fn a_worker_waits_for_the_broker_and_says_how_it_is() {
    let config = resolved();
    let worker = service(&config, "worker");
    assert_eq!(text(worker, "/depends_on/rabbitmq/condition"), "service_healthy");
    assert_eq!(list(worker, "/healthcheck/test"), ["CMD", "inferq", "health"]);
    assert!(service(&config, "rabbitmq").pointer("/healthcheck/test").is_some());
}

#[test]
fn its_settings_are_settings_and_it_has_the_time_to_drain() {
    let config = resolved();
    let worker = service(&config, "worker");
    let variables = worker["environment"].as_object().unwrap();
    let environment = Environment::of(variables.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
    let (settings, _) = Settings::load_in(&LoadOptions::default(), &environment).unwrap();
    assert!(duration(text(worker, "/stop_grace_period")) > settings.worker.drain_grace);

    let targets: Vec<String> = list(worker, "/volumes").iter().map(|volume| mount(volume).1).collect();
    for folder in [&settings.keys.directory, &settings.models.directory] {
        assert!(targets.iter().any(|target| folder == std::path::Path::new(target)), "{folder:?} is not mounted");
    }
    let port = settings.telemetry.listen.unwrap().port();
    assert_eq!(list(worker, "/expose"), [port.to_string()]);
    let prometheus = one_yaml(&super::read("deploy/prometheus/prometheus.yml"));
    assert_eq!(prometheus.pointer("/scrape_configs/0/dns_sd_configs/0/port").unwrap(), port);
}

#[test]
fn what_is_mounted_is_in_the_repository() {
    let config = resolved();
    let mut bound = 0;
    for (name, service) in config["services"].as_object().unwrap() {
        for (source, target, writable) in list(service, "/volumes").iter().map(mount) {
            let Some(path) = source.strip_prefix(root().to_str().unwrap()) else {
                assert!(config["volumes"].get(&source).is_some(), "{name}: no volume {source}");
                continue;
            };
            bound += 1;
            assert!(!writable, "{name}: {target} can be written, and lies in the repository");
            // The one thing that each makes for itself.
            assert!(path == "/keys" || root().join(&path[1..]).exists(), "{name}: {path} is not there");
        }
    }
    assert!(bound >= 5);
}

#[test]
fn images_are_pinned_and_ports_are_of_this_machine_alone() {
    let config = resolved();
    for (name, service) in config["services"].as_object().unwrap() {
        let tag = text(service, "/image").rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag.contains('.')), "{name}: its image has no full version");
        for port in service.get("ports").and_then(Value::as_array).into_iter().flatten() {
            let host = port.as_str().or_else(|| port.get("host_ip").and_then(Value::as_str)).unwrap();
            assert!(host.starts_with("127.0.0.1"), "{name}: {port}");
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(service(&config, "worker"), "/image"), format!("inferq:{version}"));
}
