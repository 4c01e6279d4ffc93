//! Ports and ranges of ports to try, in Flink's form.

use std::ops::RangeInclusive;

use super::value::ConfigValue;

/// Ports to try one after the other: `8081`, `50100-50200`, `50100,50200-50210`; 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// The ports in the order in which to try them.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }
}

impl ConfigValue for PortRanges {
    fn expected() -> String {
        "a port, a range or a list of them such as `50100,50200-50210`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let text = text.trim();
            text.parse::<u16>().map_err(|_| format!("`{text}` is not a port"))
        };
        let ranges = text
            .split(',')
            .map(|range| match range.split_once('-') {
                None => port(range).map(|port| port..=port),
                Some((first, last)) => {
                    let (first, last) = (port(first)?, port(last)?);
                    if first > last {
                        Err(format!("the range {first}-{last} is empty"))
                    } else {
                        Ok(first..=last)
                    }
                }
            })
            .collect::<Result<_, String>>()?;
        Ok(PortRanges(ranges))
    }

    fn render(&self) -> String {
        let one = |range: &RangeInclusive<u16>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// Ports to try for a service that can be switched off: as [`PortRanges`], or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsOrOff(pub Option<PortRanges>);

const OFF: &str = "off";

impl ConfigValue for PortsOrOff {
    fn expected() -> String {
        format!("{}, or `{OFF}`", PortRanges::expected())
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            // The other ways in which YAML says so.
            "off" | "Off" | "OFF" | "false" => Ok(PortsOrOff(None)),
            ports => PortRanges::parse(ports).map(|ports| PortsOrOff(Some(ports))),
        }
    }

    fn render(&self) -> String {
        self.0.as_ref().map_or_else(|| OFF.into(), PortRanges::render)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_can_be_off() {
        assert_eq!(PortsOrOff::parse("off"), Ok(PortsOrOff(None)));
        assert_eq!(PortsOrOff::parse("off").unwrap().render(), "off");
        let ports = PortsOrOff::parse("9249-9250,0").unwrap();
        assert_eq!(ports.0.as_ref().unwrap().iter().collect::<Vec<_>>(), [9249, 9250, 0]);
        assert_eq!(ports.render(), "9249-9250,0");
        assert_eq!(PortsOrOff::parse("on"), Err("`on` is not a port".into()));
    }
}
