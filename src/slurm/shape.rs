//! How the ranks of a job lie on nodes: what was asked for, what Slurm will hold, and what there is
//! to say about it.

use std::fmt;

/// Nodes, ranks and GPUs of a job. One rank drives one GPU; a CPU job has ranks only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Ranks in all, which is GPUs in all.
    pub ranks: usize,
    /// Nodes; `None` leaves it to Slurm (CPU jobs).
    pub nodes: Option<usize>,
    /// The most ranks on one node.
    pub ranks_per_node: usize,
    /// GPUs that are asked for on each node; 0 for a CPU job.
    pub gpus_per_node: usize,
}

impl Shape {
    /// `gpus` ranks with at most `per_node` on a node. Nodes that divide the number evenly leave no
    /// GPU idle; up to twice the smallest number of nodes is tried for that.
    pub fn of_gpus(gpus: usize, per_node: usize) -> Self {
        let per_node = per_node.clamp(1, gpus.max(1));
        let fewest = gpus.div_ceil(per_node).max(1);
        let nodes =
            (fewest..=2 * fewest).find(|nodes| gpus.is_multiple_of(*nodes)).unwrap_or(fewest);
        let ranks_per_node = gpus.div_ceil(nodes);
        Self { ranks: gpus, nodes: Some(nodes), ranks_per_node, gpus_per_node: ranks_per_node }
    }

    /// A job without GPUs.
    pub fn of_cpus(ranks: usize) -> Self {
        Self { ranks, nodes: None, ranks_per_node: ranks, gpus_per_node: 0 }
    }

    /// Ranks of each node, in node order.
    pub fn layout(&self) -> Vec<usize> {
        let Some(nodes) = self.nodes else { return vec![self.ranks] };
        let (each, more) = (self.ranks / nodes, self.ranks % nodes);
        (0..nodes).map(|node| each + usize::from(node < more)).collect()
    }

    /// GPUs that the job holds without using them, where every node is asked for the same number.
    pub fn idle(&self) -> usize {
        self.nodes.map_or(0, |nodes| (nodes * self.gpus_per_node).saturating_sub(self.ranks))
    }

    /// In one sentence, without a full stop.
    pub fn describe(&self) -> String {
        let ranks = plural(self.ranks, "rank");
        if self.gpus_per_node == 0 {
            return format!("{ranks} on the CPU");
        }
        match self.nodes {
            Some(nodes) if nodes > 1 => {
                let layout: Vec<String> = self.layout().iter().map(ToString::to_string).collect();
                let layout = if layout.len() > 8 {
                    format!("{} on each", layout[0])
                } else {
                    layout.join("+")
                };
                format!("{ranks} on {nodes} nodes, {layout}, one GPU each")
            }
            _ => format!("{ranks} on one node, one GPU each"),
        }
    }

    /// What a user should know who asked for `gpus` with `asked_per_node` on a node.
    pub fn notes(&self, asked_per_node: usize) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.gpus_per_node == 0 {
            return notes;
        }
        let (gpus, per_node) = (self.ranks, self.gpus_per_node);
        if asked_per_node > gpus {
            notes.push(Note::MoreThanAll { asked_per_node, gpus });
        }
        let fewest = gpus.div_ceil(asked_per_node.clamp(1, gpus.max(1)));
        let nodes = self.nodes.unwrap_or(1);
        let uneven = !gpus.is_multiple_of(asked_per_node.max(1)) && gpus > asked_per_node;
        if self.idle() > 0 {
            notes.push(Note::Idle { gpus, fewest, nodes, per_node, idle: self.idle() });
        } else if uneven {
            notes.push(Note::Spread { gpus, asked_per_node, fewest, nodes, per_node });
        }
        notes
    }
}

/// What a user should know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// More GPUs of a node were asked for than there are ranks.
    MoreThanAll { asked_per_node: usize, gpus: usize },
    /// Slurm holds GPUs that no rank uses.
    Idle { gpus: usize, fewest: usize, nodes: usize, per_node: usize, idle: usize },
    /// More nodes than needed, so that none idles.
    Spread { gpus: usize, asked_per_node: usize, fewest: usize, nodes: usize, per_node: usize },
    /// CUDA_VISIBLE_DEVICES was set for a job whose GPUs Slurm chooses.
    SlurmChooses { devices: String },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are =
            |count: usize| if count == 1 { "1 is".to_owned() } else { format!("{count} are") };
        match self {
            Self::MoreThanAll { asked_per_node, gpus } => write!(
                f,
                "GPUS_PER_NODE={asked_per_node} is more than GPUS={gpus}: {} asked for on the \
                 node, so that none idles",
                are(*gpus)
            ),
            Self::Idle { gpus, fewest, nodes, per_node, idle } => write!(
                f,
                "GPUS={gpus} does not divide evenly over {fewest} to {} nodes: Slurm holds {held} \
                 GPUs ({nodes} nodes with {per_node}), and {} idle; GPUS={held} would use all",
                2 * fewest,
                are(*idle),
                held = nodes * per_node,
            ),
            Self::Spread { gpus, asked_per_node, fewest, nodes, per_node } => write!(
                f,
                "GPUS={gpus} with GPUS_PER_NODE={asked_per_node} would hold {} GPUs on {fewest} \
                 nodes; planned are {nodes} nodes with {per_node} each, so that none idles",
                fewest * asked_per_node,
            ),
            Self::SlurmChooses { devices } => write!(
                f,
                "CUDA_VISIBLE_DEVICES={devices}: in a job Slurm chooses the GPUs and sets this \
                 variable itself; it counts only where a site profile says `gpu: {{dialect: \
                 none}}`"
            ),
        }
    }
}

/// `1 rank`, `2 ranks`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn twelve_at_eight_a_node_are_six_and_six_with_none_idle() {
        let shape = Shape::of_gpus(12, 8);
        assert_eq!((shape.nodes, shape.ranks_per_node, shape.gpus_per_node), (Some(2), 6, 6));
        assert_eq!((shape.layout(), shape.idle()), (vec![6, 6], 0));
        let notes = shape.notes(8);
        assert!(
            notes[0]
                .to_string()
                .contains("would hold 16 GPUs on 2 nodes; planned are 2 nodes with 6 each"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_number_that_does_not_divide_says_what_idles() {
        let shape = Shape::of_gpus(13, 8);
        assert_eq!((shape.nodes, shape.layout(), shape.idle()), (Some(2), vec![7, 6], 1));
        let notes = shape.notes(8);
        assert!(
            notes[0]
                .to_string()
                .contains("Slurm holds 14 GPUs (2 nodes with 7), and 1 is idle; GPUS=14"),
            "{notes:?}"
        );
    }

    #[test]
    fn full_nodes_and_single_nodes_need_no_word() {
        for (gpus, per_node) in [(8, 8), (16, 8), (4, 4), (1, 1)] {
            assert_eq!(Shape::of_gpus(gpus, per_node).notes(per_node), []);
        }
        assert_eq!(Shape::of_gpus(4, 8).gpus_per_node, 4);
        assert!(Shape::of_gpus(4, 8).notes(8)[0].to_string().contains("4 are asked for"));
        assert_eq!(Shape::of_cpus(3).describe(), "3 ranks on the CPU");
        assert_eq!(Shape::of_gpus(16, 8).describe(), "16 ranks on 2 nodes, 8+8, one GPU each");
    }

    proptest! {
        #[test]
        fn every_rank_has_a_place_and_no_node_more_than_was_allowed(gpus in 1_usize..200, per_node in 1_usize..17) {
            let shape = Shape::of_gpus(gpus, per_node);
            prop_assert_eq!(shape.layout().iter().sum::<usize>(), gpus);
            prop_assert!(shape.layout().iter().all(|ranks| *ranks <= shape.gpus_per_node && *ranks > 0));
            prop_assert!(shape.gpus_per_node <= per_node);
            prop_assert!(shape.idle() < shape.nodes.unwrap_or(1));
        }
    }
}
