//! The one table of routes. The router, the front page, the metrics and the description of the API are made from it.

use super::{
    app::App,
    extract::{Peer, queue_in_path},
    gate,
    handlers::{
        about, backup, dead, events, jobs, joins, limits, operations, push, queues, schedules, steps, work,
        workers,
    },
    problem::{self, Problem},
    reach, request_id, stream,
};
use crate::access::Right;
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, patch, post, put},
};
use std::{
    sync::{OnceLock, atomic::Ordering::Relaxed},
    time::Instant,
};

/// The metrics have room for this many.
pub(crate) const ROUTES_MAX: usize = 128;

/// One route, as it is described to others.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it needs of its caller.
    pub right: Right,
    /// The method in capitals.
    pub method: &'static str,
    /// The path; `{name}` stands for one segment.
    pub path: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The name of the body's schema; empty if it takes none.
    pub request: &'static str,
    /// The query parameters that it takes.
    pub query: &'static [&'static str],
    /// The status of its good answer.
    pub status: u16,
    /// It concerns all queues: who sees only some may not take it.
    pub whole: bool,
    /// It waits on purpose: no latency is counted.
    pub(crate) long: bool,
}

impl Route {
    const fn new(right: Right, method: &'static str, path: &'static str, summary: &'static str) -> Self {
        Self { right, method, path, summary, request: "", query: &[], status: 200, whole: false, long: false }
    }

    const fn takes(mut self, schema: &'static str) -> Self {
        self.request = schema;
        self
    }

    const fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    const fn answers(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    const fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    const fn long(mut self) -> Self {
        self.long = true;
        self
    }
}

const QUEUE: &str = "/v1/queues/{queue}";
const WORKER: &str = "/v1/workers/{worker}";
const LIMIT: &str = "/v1/limits/{key}";
const PAGE: &[&str] = &["limit", "cursor"];

#[rustfmt::skip]
fn table() -> Vec<(Route, MethodRouter<App>)> {
    use Right::{Admin, Known, Look, Open, Operate, Produce, Read, Work};
    let route = Route::new;
    vec![
        (route(Known, "GET", "/", "what is here"), get(about::index)),
        (route(Open, "GET", "/livez", "whether the loop that applies commands turns"), get(about::livez)),
        (route(Open, "GET", "/readyz", "whether the pond takes work"), get(about::readyz)),
        (route(Read, "GET", "/metrics", "Prometheus metrics"), get(about::metrics)),
        (route(Known, "GET", "/openapi.json", "this API, described"), get(about::openapi)),
        (route(Read, "GET", "/v1/events", "what happens to jobs and queues, as it happens (Server-Sent Events)").query(&["queue", "id", "kind", "state", "from", "values"]).long(), get(events::stream)),

        (route(Admin, "POST", "/v1/backup", "everything, to be kept elsewhere: a stream of chunks, without those that the caller has").takes("Backup").whole().long(), post(backup::stream)),

        (route(Produce, "POST", "/v1/push", "push jobs to several queues, all or none").query(&["wait_ms"]).takes("PushMany").answers(201), post(push::to_many)),
        (route(Known, "GET", "/v1/stream", "jobs, outcomes and pushes over one WebSocket").answers(101).long(), get(stream::open)),
        (route(Work, "POST", "/v1/fetch", "lease jobs, waiting for some if need be").takes("Fetch").long(), post(work::fetch)),
        (route(Work, "POST", "/v1/outcomes", "report how attempts ended").takes("Outcomes"), post(work::outcomes)),
        (route(Work, "POST", "/v1/renew", "keep leases").takes("Renew"), post(work::renew)),

        (route(Read, "GET", "/v1/workers", "the workers that are there").query(PAGE).whole(), get(workers::list)),
        (route(Read, "GET", WORKER, "one worker, with the jobs that it has in hand").whole(), get(workers::show)),
        (route(Operate, "POST", "/v1/workers/{worker}/quiet", "give a worker no more jobs; it ends those that it has").whole(), post(workers::quiet)),
        (route(Operate, "POST", "/v1/workers/{worker}/resume", "give it jobs again").whole(), post(workers::resume)),
        (route(Operate, "POST", "/v1/workers/{worker}/stop", "the same as quiet, and tell it to end when its jobs are done").whole(), post(workers::stop)),
        (route(Work, "GET", "/v1/workers/{worker}/revoked", "leases that were taken from a worker, waiting for some if need be").query(&["after", "wait_ms"]).long(), get(work::revoked)),

        (route(Produce, "POST", "/v1/joins", "push jobs that wait for jobs, all or none").takes("Joins").answers(201), post(joins::push)),
        (route(Look, "GET", "/v1/joins/{id}", "a join: policy, members, results, who is missing").query(&["state", "limit", "cursor"]), get(joins::show)),
        (route(Produce, "POST", "/v1/joins/{id}/members", "add members to an open join, or seal it").takes("Members").answers(201), post(joins::extend)),
        (route(Produce, "POST", "/v1/joins/{id}/cancel", "call a join off, with its members and its continuation").takes("Cancel"), post(joins::cancel)),

        (route(Read, "GET", "/v1/operations", "bulk operations"), get(operations::list)),
        (route(Read, "GET", "/v1/operations/{id}", "one bulk operation"), get(operations::show)),
        (route(Operate, "POST", "/v1/operations/{id}/pause", "let a bulk operation stand still"), post(operations::pause)),
        (route(Operate, "POST", "/v1/operations/{id}/resume", "let it go on"), post(operations::resume)),
        (route(Operate, "POST", "/v1/operations/{id}/cancel", "end it; what it changed stays changed"), post(operations::stop)),

        (route(Read, "GET", "/v1/schedules", "all schedules").query(PAGE), get(schedules::list)),
        (route(Known, "POST", "/v1/schedules/preview", "the slots that a schedule would have").takes("Preview"), post(schedules::preview)),
        (route(Read, "GET", "/v1/schedules/{id}", "one schedule: when it fires next, and what became of its slots"), get(schedules::show)),
        (route(Operate, "PUT", "/v1/schedules/{id}", "make a schedule, or make it like this").takes("Schedule"), put(schedules::put)),
        (route(Operate, "DELETE", "/v1/schedules/{id}", "forget a schedule; its jobs stay"), delete(schedules::remove)),
        (route(Operate, "POST", "/v1/schedules/{id}/pause", "let slots fire nothing"), post(schedules::pause)),
        (route(Operate, "POST", "/v1/schedules/{id}/resume", "go on with the next slot"), post(schedules::resume)),
        (route(Operate, "POST", "/v1/schedules/{id}/run", "push its job now").answers(201), post(schedules::run)),
        (route(Read, "GET", "/v1/schedules/{id}/next", "its next slots").query(&["n"]), get(schedules::next)),
        (route(Read, "GET", "/v1/limits", "all limits").whole(), get(limits::list)),
        (route(Read, "GET", LIMIT, "one limit").whole(), get(limits::show)),
        (route(Operate, "PUT", LIMIT, "set a limit; it counts at once").takes("Limit").whole(), put(limits::set)),
        (route(Operate, "DELETE", LIMIT, "remove a limit; what it held may start").whole(), delete(limits::remove)),

        (route(Read, "GET", "/v1/queues", "all queues").query(PAGE), get(queues::list)),
        (route(Read, "GET", QUEUE, "one queue: counts, totals, rates, settings"), get(queues::show)),
        (route(Operate, "PATCH", QUEUE, "change settings; makes the queue").takes("Settings"), patch(queues::configure)),
        (route(Read, "GET", "/v1/queues/{queue}/jobs", "jobs of a queue").query(&["state", "tag", "error_kind", "limit", "cursor"]), get(queues::jobs)),
        (route(Produce, "POST", "/v1/queues/{queue}/jobs", "push one job or several, all or none").query(&["wait_ms"]).takes("Push").answers(201), post(push::to_queue)),
        (route(Operate, "PATCH", "/v1/queues/{queue}/groups/{group}", "change a group's weight, hold its jobs, let them go").takes("Group"), patch(queues::set_group)),
        (route(Read, "GET", "/v1/queues/{queue}/upcoming", "the jobs that start next, in order; then those that are held, and by what").query(&["limit"]), get(queues::upcoming)),
        (route(Read, "GET", "/v1/queues/{queue}/dead/classes", "what kills its jobs, by class of error"), get(dead::classes)),
        (route(Operate, "POST", "/v1/queues/{queue}/pause", "hand out no more jobs"), post(queues::pause)),
        (route(Operate, "POST", "/v1/queues/{queue}/resume", "undo a pause"), post(queues::resume)),
        (route(Operate, "POST", "/v1/queues/{queue}/purge", "forget jobs that have not started").takes("Bulk").answers(202), post(operations::purge)),
        (route(Operate, "POST", "/v1/queues/{queue}/redrive", "give dead jobs another life").takes("Bulk").answers(202), post(operations::redrive)),
        (route(Operate, "POST", "/v1/queues/{queue}/remove", "forget final jobs").takes("Bulk").answers(202), post(operations::remove)),
        (route(Operate, "POST", "/v1/queues/{queue}/cancel", "cancel live jobs").takes("Bulk").answers(202), post(operations::cancel)),
        (route(Operate, "POST", "/v1/queues/{queue}/operations", "start a bulk operation: purge, redrive, remove, cancel, promote, retag, reprioritise or move").takes("Bulk").answers(202), post(operations::begin)),

        (route(Look, "GET", "/v1/queues/{queue}/jobs/{id}", "one job, with body and result"), get(jobs::show)),
        (route(Operate, "PATCH", "/v1/queues/{queue}/jobs/{id}", "change the body by a JSON merge patch").takes("MergePatch"), patch(dead::patch)),
        (route(Operate, "DELETE", "/v1/queues/{queue}/jobs/{id}", "forget a job that is not active"), delete(jobs::remove)),
        (route(Look, "GET", "/v1/queues/{queue}/jobs/{id}/history", "every change of a job"), get(jobs::history)),
        (route(Look, "GET", "/v1/queues/{queue}/jobs/{id}/explain", "why a job is where it is"), get(jobs::explain)),
        (route(Look, "GET", "/v1/queues/{queue}/jobs/{id}/log", "lines that its handler wrote"), get(jobs::log)),
        (route(Work, "POST", "/v1/queues/{queue}/jobs/{id}/log", "write lines").takes("LogLines"), post(jobs::append_log)),
        (route(Work, "POST", "/v1/queues/{queue}/jobs/{id}/progress", "say how far it is").takes("Progress"), post(jobs::progress)),
        (route(Produce, "POST", "/v1/queues/{queue}/jobs/{id}/cancel", "call a job off, waiting or running").takes("Cancel"), post(jobs::cancel)),
        (route(Operate, "POST", "/v1/queues/{queue}/jobs/{id}/promote", "start a delayed or retrying job now"), post(jobs::promote)),
        (route(Operate, "POST", "/v1/queues/{queue}/jobs/{id}/redrive", "give a final job another life"), post(jobs::redrive)),
        (route(Operate, "POST", "/v1/queues/{queue}/jobs/{id}/restart", "give a final job another life without its steps"), post(steps::restart)),
        (route(Look, "GET", "/v1/queues/{queue}/jobs/{id}/steps", "what a job has stored, with values"), get(steps::list)),
        (route(Work, "POST", "/v1/queues/{queue}/jobs/{id}/steps", "store the result of a step").takes("Step"), post(steps::store)),
        (route(Produce, "POST", "/v1/queues/{queue}/jobs/{id}/signal", "tell a job what it waits for").takes("Signal"), post(steps::signal)),

        (route(Look, "GET", "/v1/jobs/{id}", "one job, by its generated id"), get(jobs::show)),
        (route(Operate, "PATCH", "/v1/jobs/{id}", "change the body by a JSON merge patch").takes("MergePatch"), patch(dead::patch)),
        (route(Operate, "DELETE", "/v1/jobs/{id}", "forget a job that is not active"), delete(jobs::remove)),
        (route(Look, "GET", "/v1/jobs/{id}/history", "every change of a job"), get(jobs::history)),
        (route(Look, "GET", "/v1/jobs/{id}/explain", "why a job is where it is"), get(jobs::explain)),
        (route(Look, "GET", "/v1/jobs/{id}/log", "lines that its handler wrote"), get(jobs::log)),
        (route(Work, "POST", "/v1/jobs/{id}/log", "write lines").takes("LogLines"), post(jobs::append_log)),
        (route(Work, "POST", "/v1/jobs/{id}/progress", "say how far it is").takes("Progress"), post(jobs::progress)),
        (route(Produce, "POST", "/v1/jobs/{id}/cancel", "call a job off, waiting or running").takes("Cancel"), post(jobs::cancel)),
        (route(Operate, "POST", "/v1/jobs/{id}/promote", "start a delayed or retrying job now"), post(jobs::promote)),
        (route(Operate, "POST", "/v1/jobs/{id}/redrive", "give a final job another life"), post(jobs::redrive)),
        (route(Operate, "POST", "/v1/jobs/{id}/restart", "give a final job another life without its steps"), post(steps::restart)),
        (route(Look, "GET", "/v1/jobs/{id}/steps", "what a job has stored, with values"), get(steps::list)),
        (route(Work, "POST", "/v1/jobs/{id}/steps", "store the result of a step").takes("Step"), post(steps::store)),
        (route(Produce, "POST", "/v1/jobs/{id}/signal", "tell a job what it waits for").takes("Signal"), post(steps::signal)),
    ]
}

/// Every route that this server has.
pub fn routes() -> &'static [Route] {
    static ROUTES: OnceLock<Vec<Route>> = OnceLock::new();
    ROUTES.get_or_init(|| table().into_iter().map(|(route, _)| route).collect())
}

/// Method and path of a row of the metrics.
pub(crate) fn label(row: usize) -> (&'static str, &'static str) {
    routes().get(row).map_or(("other", "other"), |route| (route.method, route.path))
}

/// The router: the table, behind the gate.
pub(crate) fn router(app: &App) -> Router {
    let mut router = Router::new();
    for (route, handler) in table() {
        router = router.route(route.path, handler);
    }
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), enter))
        .with_state(app.clone())
}

async fn unknown_route() -> Problem {
    Problem::new(&problem::UNKNOWN_ROUTE, "there is nothing at this path")
}

async fn method_not_allowed(request: Request) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let allowed: Vec<_> =
        routes().iter().filter(|route| route.path == path).map(|route| route.method).collect();
    let allowed = allowed.join(", ");
    let detail = format!("this path takes {allowed}");
    let mut response = Problem::new(&problem::METHOD_NOT_ALLOWED, detail).into_response();
    if let Ok(value) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// What happens around every request.
async fn enter(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = app.request_ids.of(request.headers());
    let _in_flight = InFlight::new(&app);
    let path = request.extensions().get::<MatchedPath>().cloned();
    let row = path.as_ref().and_then(|path| find(request.method(), path.as_str()));
    let (mut parts, body) = request.into_parts();
    let mut response = match admit(&app, &mut parts, row.map(|row| &routes()[row])).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => {
            let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
            tracing::debug!(request = %id, code = problem.code(), ?peer, "refused at the gate");
            problem.into_response()
        }
    };
    let (status, (method, route)) = (response.status(), label(row.unwrap_or(ROUTES_MAX)));
    let ms = started.elapsed().as_millis();
    // Refusals for want of room are the caller's to act on, and too many to write down.
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(request = %id, method, route, status = status.as_u16(), ms, "not answered well");
    } else {
        tracing::debug!(request = %id, method, route, status = status.as_u16(), ms, "answered");
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(request_id::HEADER, id.into());
    let long = row.is_some_and(|row| routes()[row].long);
    app.metrics.answered(row, response.status().as_u16(), (!long).then(|| started.elapsed()));
    response
}

/// Lets a request pass to its route, with what is known of its caller.
async fn admit(app: &App, parts: &mut Parts, route: Option<&Route>) -> Result<(), Problem> {
    // What met no route is told so only to somebody who is known.
    let right = route.map_or(Right::Known, |route| route.right);
    let Some(caller) = gate::check(app, parts, right)? else { return Ok(()) };
    if caller.is_confined() {
        if route.is_some_and(|route| route.whole) {
            reach::check_whole(&caller)?;
        }
        // A name that none can have is refused further on.
        if let Some(queue) = queue_in_path(parts, app).await? {
            reach::check(&caller, &queue)?;
        }
    }
    parts.extensions.insert(caller);
    Ok(())
}

fn find(method: &Method, path: &str) -> Option<usize> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    routes().iter().position(|route| route.path == path && route.method == method)
}

/// Counts a request while it is answered, also if its client goes away meanwhile.
struct InFlight<'a>(&'a App);

impl<'a> InFlight<'a> {
    fn new(app: &'a App) -> Self {
        app.metrics.in_flight.fetch_add(1, Relaxed);
        Self(app)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.in_flight.fetch_sub(1, Relaxed);
    }
}
