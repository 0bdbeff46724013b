//! Verbs that change nothing.

use redkeep_proto::admin::v1::{
    ExplainRequest, GetHistoryRequest, GetStatusRequest, ListQuarantineRequest,
};

use super::{Kind, ask, name};
use crate::{
    connect::Target,
    failure::Failure,
    out::Out,
    show,
    view::{ExplainView, HistoryView, QuarantineView, StatusView},
};

pub(super) async fn status(
    target: &Target,
    group: Option<&str>,
    local_only: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = GetStatusRequest { local_only, group: name(group) };
    let answer = ask(target, Kind::Question, |mut client| {
        let request = request.clone();
        async move { client.get_status(request).await }
    })
    .await?;
    let view = StatusView::from(answer.status.unwrap_or_default());
    out.answer(&view, show::status)
}

pub(super) async fn history(
    target: &Target,
    group: Option<&str>,
    (limit, local_only): (u32, bool),
    out: &mut Out,
) -> Result<(), Failure> {
    let request = GetHistoryRequest { local_only, group: name(group), limit };
    let answer = ask(target, Kind::Question, |mut client| {
        let request = request.clone();
        async move { client.get_history(request).await }
    })
    .await?;
    out.answer(&HistoryView::from(answer), show::history)
}

pub(super) async fn explain(
    target: &Target,
    group: &str,
    local_only: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = ExplainRequest { local_only, group: group.to_owned() };
    let answer = ask(target, Kind::Question, |mut client| {
        let request = request.clone();
        async move { client.explain(request).await }
    })
    .await?;
    out.answer(&ExplainView::from(answer), show::explain)
}

pub(super) async fn quarantine(
    target: &Target,
    group: Option<&str>,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = ListQuarantineRequest { group: name(group) };
    let answer = ask(target, Kind::Question, |mut client| {
        let request = request.clone();
        async move { client.list_quarantine(request).await }
    })
    .await?;
    out.answer(&QuarantineView::from(answer), show::quarantine)
}
