//! The parts of a request's address.

use super::error::ApiError;

/// Segments a path may have; the longest of the API has nine.
const SEGMENTS_MAX: usize = 16;

/// The decoded segments of a path below the prefix, without the version. Nothing if the path lies outside the prefix.
pub(super) fn segments(path: &str, prefix: &str) -> Result<Option<Vec<String>>, ApiError> {
    let Some(rest) = path.strip_prefix(prefix).or_else(|| path.strip_prefix(prefix.trim_end_matches('/')))
    else {
        return Ok(None);
    };
    let mut parts = rest.split('/').filter(|part| !part.is_empty()).peekable();
    parts.next_if(|part| *part == "v1");
    let mut segments = Vec::new();
    for part in parts {
        if segments.len() == SEGMENTS_MAX {
            return Ok(None);
        }
        segments.push(decode(part)?);
    }
    Ok(Some(segments))
}

/// Percent-decoded text.
fn decode(part: &str) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!(
            "Bad request, could not parse the path: '{part}' is not percent-encoded UTF-8"
        ))
    };
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// The parameters behind the question mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads `a=1&b=2`; what is no text in UTF-8 becomes replacement characters.
    pub(super) fn parse(query: &str) -> Self {
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query);
        Parameters(pairs.map(|pairs| pairs.into_inner()).unwrap_or_default())
    }

    /// The first value of `name`; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of `name`, split at commas.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let found = self.0.iter().filter(|(key, _)| key == name);
        let values: Vec<_> =
            found.flat_map(|(_, value)| value.split(',')).filter(|value| !value.is_empty()).collect();
        (!values.is_empty()).then_some(values)
    }

    /// The value of `name` as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                ApiError::parameters(format!(
                    "Cannot resolve query parameter ({name}) from value \"{text}\"."
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_answers_bare_and_versioned_and_below_the_prefix_only() {
        let of = |path, prefix| segments(path, prefix).unwrap();
        assert_eq!(of("/jobs/overview", "/"), Some(vec!["jobs".into(), "overview".into()]));
        assert_eq!(of("/v1/jobs/overview", "/"), of("/jobs/overview/", "/"));
        assert_eq!(of("/proxy/v1/jobs", "/proxy/"), Some(vec!["jobs".into()]));
        assert_eq!(of("/proxy", "/proxy/"), Some(vec![]));
        assert_eq!(of("/other/jobs", "/proxy/"), None);
        assert_eq!(of("/a%20b%2Fc", "/"), Some(vec!["a b/c".into()]));
        assert!(segments("/%zz", "/").is_err());
        assert!(segments("/%ff", "/").is_err());
    }

    #[test]
    fn parameters_are_lists_and_numbers() {
        let parameters = Parameters::parse("get=a,b&get=c&maxExceptions=7&mode=&x=%20y");
        assert_eq!(parameters.list("get"), Some(vec!["a", "b", "c"]));
        assert_eq!(parameters.number("maxExceptions").unwrap(), Some(7_u32));
        assert_eq!(parameters.get("mode"), None);
        assert_eq!(parameters.get("x"), Some(" y"));
        assert!(parameters.number::<u32>("x").is_err());
    }
}
