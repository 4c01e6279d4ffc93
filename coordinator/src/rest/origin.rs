//! Whether a web page stands behind a request, and whether it is one that may change something.
//!
//! Without a shared secret, everything that reaches the port may run programs. The port is one of the loopback then, but a
//! browser on this host reaches it too, on behalf of any page it shows: a form or a `fetch` without CORS is sent before
//! anybody is asked, and a name of the page's own site may resolve to the loopback (DNS rebinding). A browser says what it
//! does, though: which name it called (`Host`) and for whom (`Origin`, `Sec-Fetch-Site`). Clients that are no browsers
//! send neither of the latter. Where there is a secret, no page knows it, and none of this is asked.

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use flott_schema::security::is_loopback;

use super::error::ApiError;
use super::options::Options;
use super::route::Route;

/// Sent by browsers: how the site of the page stands to the one that is called.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request may have an effect: what GET asks for has none, apart from two ways that Flink has.
pub(super) fn changes(method: &Method, route: &Route) -> bool {
    let reads = *method == Method::GET || *method == Method::HEAD;
    !reads || matches!(route, Route::CancelJobByGet(_) | Route::PlanProgram(_))
}

/// Refuses a request for a change that a web page of another origin has caused, or may have.
pub(super) fn check_origin(headers: &HeaderMap, options: &Options) -> Result<(), ApiError> {
    if !options.token.is_none() {
        return Ok(());
    }
    let text = |name: &HeaderName| -> Vec<&str> {
        headers.get_all(name).map(|value| value.to_str().unwrap_or("(unreadable)")).collect()
    };
    let hosts = text(&header::HOST);
    if let Some(host) = hosts.iter().find(|host| !is_own_host(host, options)) {
        return Err(refused(format!(
            "'{host}' is no name that this coordinator knows as its own: call it by the name in `rest.address`, or as localhost"
        )));
    }
    let named = |origin: &str| options.allow_origin != "*" && origin == options.allow_origin;
    let own = |origin: &str| hosts.iter().any(|host| authority(origin) == Some(host));
    let origins = text(&header::ORIGIN);
    if let Some(origin) = origins.iter().find(|origin| !named(origin) && !own(origin)) {
        return Err(refused(format!(
            "a page of '{origin}' may change nothing here: name it in `web.access-control-allow-origin` ('*' counts for reading only)"
        )));
    }
    let foreign = |site: &&&str| !["same-origin", "none"].contains(*site);
    if origins.is_empty()
        && let Some(site) = text(&SEC_FETCH_SITE).iter().find(foreign)
    {
        return Err(refused(format!("a page of another origin ({site}) may change nothing here")));
    }
    Ok(())
}

fn refused(why: String) -> ApiError {
    let how = "Without a secret (`security.token`) pages of other sites are kept from running programs";
    ApiError::new(StatusCode::FORBIDDEN, format!("{how}: {why}"))
}

/// Whether a `Host` names this coordinator: the loopback, or what the configuration calls it. One that serves the pages of
/// an origin which the configuration names is such a name too: a proxy may stand there.
fn is_own_host(host: &str, options: &Options) -> bool {
    let name = without_port(host);
    let is = |other: &str| name.eq_ignore_ascii_case(without_port(other));
    is_loopback(name)
        || options.advertised_address.as_deref().is_some_and(is)
        || authority(&options.allow_origin).is_some_and(is)
}

/// `host[:port]` of an origin, `scheme://host[:port]`.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// The host of `host[:port]`; an address of IPv6 stands in brackets, or has no port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use flott_schema::security::Token;

    use super::*;

    fn refusal(options: &Options, pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let error = check_origin(&pairs.collect(), options).err()?;
        assert_eq!(error.status, StatusCode::FORBIDDEN);
        Some(error.message)
    }

    #[test]
    fn clients_that_are_no_browsers_are_let_through() {
        let options = Options::default();
        for host in
            ["localhost:8081", "127.0.0.1:8081", "[::1]:8081", "127.0.0.1", "LOCALHOST", "[::1]", "::1"]
        {
            assert_eq!(refusal(&options, &[("host", host)]), None, "{host}");
        }
        // A follower names no host when it hands a request on.
        assert_eq!(refusal(&options, &[]), None);
    }

    #[test]
    fn a_name_that_is_not_its_own_is_refused() {
        let options = Options::default();
        for host in
            ["evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example:8081", "", ":8081"]
        {
            let error = refusal(&options, &[("host", host)]).unwrap_or_else(|| panic!("{host}"));
            assert!(error.contains("rest.address") && error.contains("security.token"), "{error}");
        }
        assert!(refusal(&options, &[("host", "localhost:8081"), ("host", "evil.example")]).is_some());
        let known = Options { advertised_address: Some("flott.example:80".into()), ..Options::default() };
        assert_eq!(refusal(&known, &[("host", "Flott.example")]), None);
        assert!(refusal(&known, &[("host", "evil.example")]).is_some());
    }

    #[test]
    fn a_page_changes_something_if_it_is_of_this_origin_or_of_the_one_that_is_named() {
        let host = ("host", "localhost:8081");
        let default = Options::default();
        assert_eq!(default.allow_origin, "*");
        assert_eq!(refusal(&default, &[host, ("origin", "http://localhost:8081")]), None);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8081",
        ] {
            let error = refusal(&default, &[host, ("origin", origin)]).unwrap_or_else(|| panic!("{origin}"));
            assert!(error.contains("web.access-control-allow-origin"), "{error}");
        }
        let named = Options { allow_origin: "https://dash.example".into(), ..Options::default() };
        assert_eq!(refusal(&named, &[host, ("origin", "https://dash.example")]), None);
        // A proxy that tells what it was called.
        let proxied = [("host", "dash.example"), ("origin", "https://dash.example")];
        assert_eq!(refusal(&named, &proxied), None);
        assert!(refusal(&named, &[host, ("origin", "https://dash.example.evil")]).is_some());
    }

    #[test]
    fn an_image_or_a_link_in_a_page_says_no_origin_but_the_site() {
        let host = ("host", "localhost:8081");
        let options = Options::default();
        for (site, is_refused) in
            [("cross-site", true), ("same-site", true), ("same-origin", false), ("none", false)]
        {
            assert_eq!(refusal(&options, &[host, ("sec-fetch-site", site)]).is_some(), is_refused, "{site}");
        }
    }

    #[test]
    fn where_there_is_a_secret_it_decides_alone() {
        let options = Options { token: Token::new("correct-horse").unwrap(), ..Options::default() };
        assert_eq!(refusal(&options, &[("host", "any.example"), ("origin", "https://dash.example")]), None);
    }
}
