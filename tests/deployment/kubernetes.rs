//! The manifests: YAML, of one mind with each other, with the settings and with the topology.

use std::time::Duration;

use inferq::broker::topology::Names;
use inferq::settings::{Environment, LoadOptions, Settings};
use serde_json::Value;

use super::{files, list, read, text, yaml};

fn settings() -> Settings {
    Settings::load_in(&LoadOptions::default(), &Environment::default()).unwrap().0
}

/// The manifest of this kind and name.
fn manifest(kind: &str, name: &str) -> Value {
    let documents = files("deploy/kubernetes").into_iter().flat_map(|path| yaml(&read(&path)));
    let mut found = documents.filter(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_manifest_is_in_the_kustomization() {
    let kustomization = &yaml(&read("deploy/kubernetes/kustomization.yaml"))[0];
    let mut listed: Vec<&str> = list(kustomization, "/resources").iter().map(|name| name.as_str().unwrap()).collect();
    listed.sort_unstable();
    let there = files("deploy/kubernetes");
    let there: Vec<&str> = there.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    let there: Vec<&str> = there.into_iter().filter(|name| *name != "kustomization.yaml").collect();
    assert_eq!(listed, there);
    assert_eq!(text(kustomization, "/images/0/newTag"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_pod_has_the_time_to_drain() {
    let deployment = manifest("Deployment", "inferq-worker");
    let grace = deployment.pointer("/spec/template/spec/terminationGracePeriodSeconds").unwrap().as_u64().unwrap();
    assert!(Duration::from_secs(grace) > settings().worker.drain_grace);
}

#[test]
fn probes_ask_the_port_that_the_worker_listens_on() {
    let deployment = manifest("Deployment", "inferq-worker");
    let worker = deployment.pointer("/spec/template/spec/containers/0").unwrap();
    let port = settings().telemetry.listen.unwrap().port();
    assert_eq!(worker.pointer("/ports/0/containerPort").unwrap(), port);
    let name = text(worker, "/ports/0/name");
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(text(worker, &format!("/{probe}/httpGet/path")), path);
        assert_eq!(text(worker, &format!("/{probe}/httpGet/port")), name);
    }
}

#[test]
fn no_container_may_do_what_it_does_not_need() {
    let deployment = manifest("Deployment", "inferq-worker");
    let pod = deployment.pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    for container in list(pod, "/containers") {
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(list(context, "/capabilities/drop"), ["ALL"]);
        assert!(container.pointer("/resources/limits/memory").is_some());
    }
}

#[test]
fn keys_are_mounted_so_that_the_worker_may_read_them_and_a_rotation_reaches_it() {
    let deployment = manifest("Deployment", "inferq-worker");
    let pod = deployment.pointer("/spec/template/spec").unwrap();
    let mounts = list(&pod["containers"][0], "/volumeMounts");
    let keys: Vec<_> =
        mounts.iter().filter(|mount| text(mount, "/mountPath").starts_with("/etc/inferq/keys/")).collect();
    assert!(!keys.is_empty());
    for mount in keys {
        // Kubernetes never renews what is mounted by a path inside a volume, or picked by name when the pod starts.
        assert!(mount.get("subPath").is_none());
        let volume = list(pod, "/volumes").iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        assert!(volume.pointer("/secret/items").is_none());
        assert!(volume.pointer("/secret/defaultMode").is_some());
    }
    assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"]);
    let environment = list(&pod["containers"][0], "/env");
    assert!(
        environment.iter().any(|entry| entry["name"] == "INFERQ__KEYS__ALLOW_GROUP_READ" && entry["value"] == "true")
    );
}

#[test]
fn its_environment_is_understood() {
    let deployment = manifest("Deployment", "inferq-worker");
    let variables = list(&deployment, "/spec/template/spec/containers/0/env");
    let pairs = variables.iter().map(|variable| {
        // What stands for a secret or a field of the pod.
        let from_elsewhere = if variable["name"] == "INFERQ_AMQP_URL" { "amqp://host/%2f" } else { "a-name" };
        let value = variable.get("value").and_then(Value::as_str).unwrap_or(from_elsewhere);
        (text(variable, "/name"), value)
    });
    Settings::load_in(&LoadOptions::default(), &Environment::of(pairs)).unwrap();
}

#[test]
fn the_scaler_looks_at_the_queues_that_workers_declare() {
    let scaled = manifest("ScaledObject", "inferq-worker");
    assert_eq!(text(&scaled, "/spec/scaleTargetRef/name"), "inferq-worker");
    let names = Names::new(&settings().broker.name_prefix);
    let queues: Vec<&str> =
        list(&scaled, "/spec/triggers").iter().map(|one| text(one, "/metadata/queueName")).collect();
    assert_eq!(queues, [names.job_queue("topic"), names.urgent_queue("topic")]);
    let authentication = text(&scaled, "/spec/triggers/0/authenticationRef/name");
    assert_eq!(text(&manifest("TriggerAuthentication", authentication), "/spec/secretTargetRef/0/parameter"), "host");
}
