//! Lists: which page of which state is asked for.

use serde::Deserialize;

use super::problem::Problem;
use crate::model::TestState;

/// The query of a list. Everything may be left out; an empty value counts as left out.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only what is in this state.
    #[param(value_type = Option<TestState>)]
    state: Option<String>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many at most; 50 unless told.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500, default = 50)]
    limit: Option<String>,
}

/// A page that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) state: Option<TestState>,
    pub(super) before: Option<i64>,
    pub(super) limit: usize,
}

impl ListQuery {
    /// Checks the query of a list whose cursors are of `kind`.
    pub(super) fn read(&self, kind: Cursor) -> Result<Wanted, Problem> {
        let state = given(self.state.as_deref()).map(parse_state).transpose()?;
        let before = given(self.cursor.as_deref()).map(|text| kind.read(text)).transpose()?;
        let limit = number("limit", self.limit.as_deref(), 1, 500)?.unwrap_or(50);
        Ok(Wanted { state, before, limit: usize::try_from(limit).unwrap_or(usize::MAX) })
    }
}

/// A parameter that was left empty, as in `?state=`, was not given.
pub(super) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Reads a whole number between `min` and `max`.
pub(super) fn number(
    name: &'static str,
    text: Option<&str>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, Problem> {
    let Some(text) = given(text) else { return Ok(None) };
    match text.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(Some(n)),
        _ => {
            let detail = format!("{name} is a whole number from {min} to {max}, not {text:?}");
            Err(Problem::bad_request("invalid_query", detail))
        }
    }
}

fn parse_state(text: &str) -> Result<TestState, Problem> {
    TestState::from_name(text).ok_or_else(|| {
        let known = TestState::ALL.map(TestState::name).join(", ");
        Problem::bad_request("invalid_query", format!("state is one of {known}, not {text:?}"))
    })
}

/// Cursors: opaque to clients, and different for each list, so that none is taken for another list's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cursor {
    Jobs,
    Tests,
    Inbox,
}

impl Cursor {
    fn prefix(self) -> char {
        match self {
            Self::Jobs => 'j',
            Self::Tests => 't',
            Self::Inbox => 'm',
        }
    }

    pub(super) fn write(self, place: i64) -> String {
        format!("{}{place:x}", self.prefix())
    }

    pub(super) fn read(self, text: &str) -> Result<i64, Problem> {
        let place = text.strip_prefix(self.prefix()).and_then(|rest| i64::from_str_radix(rest, 16).ok());
        // Only what `write` writes: `j+1` or `j01` would be read as well.
        place.filter(|place| *place >= 0 && self.write(*place) == text).ok_or_else(|| {
            let detail = "the cursor is not one that this list gave; leave it out to begin anew";
            Problem::bad_request("invalid_cursor", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_by_its_own_list() {
        for place in [0, 1, 255, i64::MAX] {
            assert_eq!(Cursor::Jobs.read(&Cursor::Jobs.write(place)), Ok(place));
        }
        for wrong in ["", "j", "1", "t1", "j+1", "j01", "j-1", "jG", "jffffffffffffffffff"] {
            assert!(Cursor::Jobs.read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_parameter_is_one_that_was_not_given() {
        let query = ListQuery { state: Some(String::new()), cursor: Some(String::new()), limit: None };
        let wanted = query.read(Cursor::Jobs).expect("nothing is wrong");
        assert_eq!(wanted, Wanted { state: None, before: None, limit: 50 });
    }
}
