//! Which endpoint a request is for.

use std::rc::Rc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::http::Method;

use super::Api;
use super::answer::{self, Answer, Answered, Refusal};
use super::archive;
use super::content;
use super::exec;
use super::files;
use super::ports;
use super::query::Query;
use super::watch;

/// Answers one request. Refusals are answers too.
pub(crate) async fn answer(request: Request<Incoming>, api: Rc<Api>) -> Answered {
    Ok(route(request, api)
        .await
        .unwrap_or_else(Refusal::into_answer))
}

async fn route(request: Request<Incoming>, api: Rc<Api>) -> Result<Answer, Refusal> {
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let get = |method: &Method| *method == Method::GET;
    let post = |method: &Method| *method == Method::POST;
    match words.as_slice() {
        ["v1", "version"] => {
            method(&request, get)?;
            Ok(answer::json(&serde_json::json!({
                "agent": env!("CARGO_PKG_VERSION"),
                "api": 1,
            })))
        }
        ["v1", "exec"] => {
            method(&request, post)?;
            exec::start(request.into_body(), api).await
        }
        ["v1", "files"] => {
            method(&request, post)?;
            files::operate(request.into_body()).await
        }
        ["v1", "file"] if request.method() == Method::PUT => {
            content::write(&query, request.into_body()).await
        }
        ["v1", "file"] => {
            method(&request, get)?;
            content::read(&query).await
        }
        ["v1", "archive"] if request.method() == Method::PUT => {
            archive::unpack(&query, request.into_body()).await
        }
        ["v1", "archive"] => {
            method(&request, get)?;
            archive::pack(&query).await
        }
        ["v1", "watch"] => {
            method(&request, get)?;
            watch::watch(&query).await
        }
        ["v1", "connect"] => {
            method(&request, post)?;
            ports::connect(&query, request.into_body()).await
        }
        ["v1", "listen"] => {
            method(&request, post)?;
            ports::listen(&query, api).await
        }
        ["v1", "listeners", id, "accept"] => {
            method(&request, post)?;
            ports::accept(id, &api, request.into_body()).await
        }
        ["v1", "processes", id, action] => {
            method(&request, post)?;
            let process = id
                .parse()
                .ok()
                .and_then(|id| api.processes.get(id))
                .ok_or_else(|| Refusal::not_found("this process has ended"))?;
            match *action {
                "signal" => process.signal(query.needed_number("number")?)?,
                "terminate" => process.terminate(query.needed_number("grace")?),
                "size" => process.resize(
                    query.needed_number("columns")?,
                    query.needed_number("rows")?,
                )?,
                _ => return Err(unknown(&path)),
            }
            Ok(answer::done())
        }
        _ => Err(unknown(&path)),
    }
}

fn method(request: &Request<Incoming>, is_right: impl Fn(&Method) -> bool) -> Result<(), Refusal> {
    if is_right(request.method()) {
        Ok(())
    } else {
        Err(Refusal::method())
    }
}

fn unknown(path: &str) -> Refusal {
    Refusal::not_found(format!("there is no {path}"))
}
