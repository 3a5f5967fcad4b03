//! Three RabbitMQ nodes on this machine that are one cluster.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::rabbitmq::Node;

const POLL: Duration = Duration::from_millis(300);
/// How long a cluster may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster; its virtual hosts are those of its first node.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A quorum queue's replicas, as a node that runs tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// The Erlang name of the node that leads.
    pub leader: String,
    /// How many replicas run.
    pub online: usize,
}

impl Cluster {
    /// Starts three nodes.
    pub async fn start() -> Self {
        let first = Node::start().await;
        let second = Node::start_beside(&first).await;
        let third = Node::start_beside(&first).await;
        Self { nodes: vec![first, second, third] }
    }

    /// The replicas of `queue` in `vhost`, as node `asked` sees them; none where it cannot tell.
    pub async fn replicas(&self, asked: usize, vhost: &str, queue: &str) -> Replicas {
        let arguments = ["list_queues", "--no-table-headers", "--vhost", vhost, "name", "leader", "online"];
        let listed = self.nodes[asked].control(&arguments).await;
        let row = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|row| row[0] == queue);
        let Some([_, leader, online]) = row.as_deref() else { return Replicas::default() };
        let online = online.split(',').filter(|name| name.contains('@')).count();
        Replicas { leader: (*leader).to_owned(), online }
    }

    /// Waits until `queue` has a leader and as many replicas as there are nodes; the number of the node that leads.
    pub async fn leader_when_whole(&self, vhost: &str, queue: &str) -> usize {
        let began = Instant::now();
        loop {
            let replicas = self.replicas(0, vhost, queue).await;
            let leads = self.nodes.iter().position(|node| node.erlang_name() == replicas.leader);
            if let (Some(leads), true) = (leads, replicas.online == self.nodes.len()) {
                return leads;
            }
            assert!(began.elapsed() < PATIENCE, "the replicas of {queue} are not whole: {replicas:?}");
            sleep(POLL).await;
        }
    }
}
