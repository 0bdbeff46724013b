//! The explanation.

use redkeep_proto::admin::v1 as pb;
use serde::Serialize;

use super::{FreshnessView, GroupView, ProblemView, status::ReasonView, time::ms};

#[derive(Debug, Serialize)]
pub(crate) struct ExplainView {
    pub(crate) freshness: FreshnessView,
    pub(crate) summary: String,
    pub(crate) group: GroupView,
    /// Best first.
    pub(crate) candidates: Vec<CandidateView>,
    pub(crate) problems: Vec<ProblemView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CandidateView {
    pub(crate) node: String,
    pub(crate) eligible: bool,
    /// Null: it could be promoted, or only the leader knows.
    pub(crate) excluded: Option<ReasonView>,
    pub(crate) priority: u32,
    pub(crate) offset: Option<u64>,
    /// Lost if it were promoted now, as far as known; null = it is the master, or that is not known.
    pub(crate) loss_bytes: Option<u64>,
    pub(crate) loss_known_ago_ms: Option<u64>,
}

impl From<pb::ExplainResponse> for ExplainView {
    fn from(answer: pb::ExplainResponse) -> Self {
        let pb::ExplainResponse { freshness, group, summary, candidates, problems } = answer;
        Self {
            freshness: freshness.unwrap_or_default().into(),
            summary,
            group: group.unwrap_or_default().into(),
            candidates: candidates.into_iter().map(CandidateView::from).collect(),
            problems: problems.into_iter().map(ProblemView::from).collect(),
        }
    }
}

impl From<pb::Candidate> for CandidateView {
    fn from(candidate: pb::Candidate) -> Self {
        let pb::Candidate {
            node,
            eligible,
            excluded,
            priority,
            offset,
            loss_bytes,
            loss_known_ago,
        } = candidate;
        Self {
            node,
            eligible,
            excluded: excluded.map(ReasonView::from),
            priority,
            offset,
            loss_bytes,
            loss_known_ago_ms: loss_known_ago.map(ms),
        }
    }
}
