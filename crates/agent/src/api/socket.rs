//! The Unix socket and HTTP on it.

use super::{ApiRequest, Service, follow};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use mainstay_api::Problem;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;

/// The body of a request at most: libvirt itself takes no larger domain XML.
const BODY_BYTES_MAX: usize = 4 << 20;

/// The API can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody answers at the socket.
    #[error("another agent already answers at {path}: stop it first, or give this one another [api] socket", path = path.display())]
    AlreadyServed {
        /// The path at which another agent listens.
        path: PathBuf,
    },
    /// It can't be made.
    #[error("the API socket {path} can't be made: {source}; run the agent as root, or name another [api] socket", path = path.display())]
    Socket {
        /// The path of the socket that could not be made.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A socket to serve. Dropping it does not remove the file: the next agent replaces it.
#[derive(Debug)]
pub struct Listener(UnixListener);

/// Makes the socket. One that a crashed agent left is replaced; one that answers means a second agent.
pub fn bind(path: &Path) -> Result<Listener, ApiError> {
    let failed = |source| ApiError::Socket { path: path.to_path_buf(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(ApiError::AlreadyServed { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Until here the usual umask (022) keeps others from writing to it, and so from connecting.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Listener(listener))
}

pub(super) async fn serve(service: Arc<Service>, listener: Listener) -> io::Result<()> {
    let router = axum::Router::new().fallback(handle).with_state(service);
    axum::serve(listener.0, router).await
}

async fn handle(State(service): State<Arc<Service>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let method = head.method.as_str();
    let host = head.headers.get("mainstay-host").map(|host| host.to_str().unwrap_or("?"));
    let here = host.is_none_or(|host| host == service.me.name || host == service.me.id.as_str());
    if here && let Ok(ApiRequest::Events { after, limit, follow: true }) = ApiRequest::parse(method, target) {
        return respond(200, "application/jsonlines", follow::body(service, after, limit));
    }
    let (status, json) = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => service.serve(method, target, host, &body).await,
        Err(error) => {
            let error =
                format!("the request's body can't be read, or has more than {BODY_BYTES_MAX} bytes: {error}");
            (413, serde_json::to_value(Problem { error }).unwrap_or_default())
        }
    };
    respond(status, "application/json", Body::from(json.to_string()))
}

fn respond(status: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
