//! The first frames of a connection: each side says who it is and whom it meant.

use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
};
use quorumgate_proto::peer::v1 as pb;

pub use pb::hello::Use;

pub const PROTOCOL: u32 = 1;

/// What this process says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    pub cluster: [u8; 16],
    pub node: NodeId,
    pub incarnation: [u8; 16],
}

impl Me {
    pub fn hello(&self, dialled: NodeId, r#use: Use) -> pb::Hello {
        pb::Hello {
            protocol: PROTOCOL,
            cluster_id: self.cluster.to_vec(),
            node_id: self.node,
            incarnation: self.incarnation.to_vec(),
            dialled_id: dialled,
            r#use: r#use.into(),
            level: quorumgate_model::LEVEL,
            version: crate::VERSION.into(),
            refused: String::new(),
        }
    }

    /// Checks the other side's words, but for its certificate: the reason if they do not fit.
    pub fn check(&self, hello: &pb::Hello, dialled: Option<NodeId>) -> Result<(), String> {
        if hello.protocol != PROTOCOL {
            return Err(format!("peer protocol {}; spoken here: {PROTOCOL}", hello.protocol));
        }
        if hello.cluster_id != self.cluster {
            return Err("it belongs to another cluster".into());
        }
        match dialled {
            Some(dialled) if dialled != hello.node_id && !mutants::is(Mutant::WhoeverAnswers) => {
                Err(format!("node {dialled} was dialled and node {} answered", hello.node_id))
            }
            None if hello.dialled_id != self.node && !mutants::is(Mutant::WhoeverAnswers) => {
                Err(format!("node {} was dialled, this is node {}", hello.dialled_id, self.node))
            }
            _ => Ok(()),
        }
    }
}

/// A joiner's: it belongs to no cluster yet.
pub fn stranger() -> pb::Hello {
    pb::Hello {
        protocol: PROTOCOL,
        r#use: Use::Join.into(),
        level: quorumgate_model::LEVEL,
        version: crate::VERSION.into(),
        ..Default::default()
    }
}
