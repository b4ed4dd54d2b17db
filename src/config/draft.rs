//! A configuration that can be changed while it holds: the text it came from, with cameras put in, exchanged or taken
//! out as if the file said so, and checked as the file is.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::load;
use super::report::is_topic_level;
use super::{Config, Problem, Problems};
use crate::frame::CameraId;

/// A change of one camera.
#[derive(Clone, Debug, PartialEq)]
pub enum CameraEdit {
    /// A camera of a name that there is not yet: a `[[camera]]` section as JSON.
    Add(Map<String, Value>),
    /// A camera of a name that there is: the whole section; what it does not say is at its default.
    Change(Map<String, Value>),
    /// The camera of this name goes.
    Remove(CameraId),
}

/// The text of the configuration that holds, taken apart.
#[derive(Clone)]
pub struct Draft {
    document: toml::Table,
    folder: PathBuf,
}

/// An address in it may hold a password.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draft")
    }
}

impl Draft {
    /// Of a text that was checked already; its relative paths start at `folder`.
    pub(super) fn new(text: &str, folder: &Path) -> Self {
        Self { document: text.parse().unwrap_or_default(), folder: folder.to_owned() }
    }

    /// The draft with the edit, and the configuration that it makes of `config`: the camera is as the edit says, everything
    /// else stays as it is, whatever became of the files it came from.
    ///
    /// # Errors
    ///
    /// Everything wrong with the edit. There are no lines: it came from no file.
    pub fn edited(&self, config: &Config, edit: &CameraEdit) -> Result<(Self, Config), Problems> {
        let id = self.check(edit)?;
        let mut draft = self.clone();
        draft.apply(&id, edit)?;
        let text = toml::to_string(&draft.document).map_err(|_| one("camera", "it cannot be written as TOML"))?;
        let mut made = load::parse(&text, &draft.folder).map_err(without_lines)?;
        let mut config = Config { hash: made.hash.clone(), ..config.clone() };
        let fresh = made.cameras.iter().position(|camera| camera.id == id).map(|at| made.cameras.swap_remove(at));
        let place = config.cameras.iter().position(|camera| camera.id == id);
        match (place, fresh) {
            (Some(place), Some(fresh)) => config.cameras[place] = fresh,
            (Some(place), None) => drop(config.cameras.remove(place)),
            (None, Some(fresh)) => config.cameras.push(fresh),
            (None, None) => {}
        }
        let prefix = format!("camera[{id}]");
        config.labels.retain(|used| !used.path.starts_with(&prefix));
        let labels = made.labels.into_iter().filter(|used| used.path.starts_with(&prefix));
        config.labels.extend(labels.map(|used| super::LabelUse { line: None, ..used }));
        Ok((draft, config))
    }

    /// The camera that the edit is about.
    fn check(&self, edit: &CameraEdit) -> Result<CameraId, Problems> {
        let id = match edit {
            CameraEdit::Remove(id) => id.as_str(),
            CameraEdit::Add(section) | CameraEdit::Change(section) => {
                section.get("id").and_then(Value::as_str).unwrap_or_default()
            }
        };
        if !is_topic_level(id) {
            return Err(one(
                "camera.id",
                "give the camera's name: 1 to 64 of the characters A-Z, a-z, 0-9, _ and -",
            ));
        }
        let there = self.place(id).is_some();
        match edit {
            CameraEdit::Add(_) if there => {
                Err(one("camera.id", &format!("there is a camera {id} already: change it, or give another name")))
            }
            CameraEdit::Change(_) | CameraEdit::Remove(_) if !there => {
                Err(one("camera.id", &format!("there is no camera {id}: add it, or give the name of one there is")))
            }
            _ => Ok(CameraId::new(id)),
        }
    }

    fn apply(&mut self, id: &CameraId, edit: &CameraEdit) -> Result<(), Problems> {
        let place = self.place(id.as_str());
        let cameras = self.document.entry("camera").or_insert_with(|| toml::Value::Array(Vec::new()));
        let toml::Value::Array(cameras) = cameras else { return Err(one("camera", "give [[camera]] sections")) };
        match edit {
            CameraEdit::Remove(_) => drop(place.map(|place| cameras.remove(place))),
            CameraEdit::Add(section) | CameraEdit::Change(section) => {
                let null = "a value is null, or a number is too large: leave out what is to be at its default";
                let section = toml::Value::try_from(section).map_err(|_| one(&format!("camera[{id}]"), null))?;
                match place {
                    Some(place) => cameras[place] = section,
                    None => cameras.push(section),
                }
            }
        }
        Ok(())
    }

    fn place(&self, id: &str) -> Option<usize> {
        let cameras = self.document.get("camera")?.as_array()?;
        cameras.iter().position(|camera| camera.get("id").and_then(toml::Value::as_str) == Some(id))
    }
}

fn one(path: &str, text: &str) -> Problems {
    Problems(vec![Problem { line: None, path: path.to_owned(), text: text.to_owned() }])
}

/// Those of a text that nobody wrote mean nothing.
fn without_lines(problems: Problems) -> Problems {
    Problems(problems.0.into_iter().map(|problem| Problem { line: None, ..problem }).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::diff::plan;

    fn start() -> (Draft, Config) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/yolox-nano.toml");
        let text = format!(
            "node = \"n\"\n[engine]\nmanifest = {manifest:?}\n[[camera]]\nid = \"a\"\nurl = \"test://\"\n\
             [[camera]]\nid = \"b\"\nurl = \"test://?fps=3\"\n"
        );
        (Draft::new(&text, Path::new("")), load::parse(&text, Path::new("")).unwrap())
    }

    fn section(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn cameras_are_added_changed_and_removed_as_if_the_file_said_so() {
        let (draft, config) = start();
        let zone = json!({"name": "drive", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], "labels": ["person"]});
        let fresh = section(json!({"id": "c", "url": "test://", "fps_max": 5, "zone": [zone]}));
        let (draft, three) = draft.edited(&config, &CameraEdit::Add(fresh)).unwrap();
        assert_eq!(three.cameras[2].zones[0].name, "drive");
        assert_eq!((three.cameras[2].fps_max, three.labels.len()), (Some(5.0), 1));
        let other = section(json!({"id": "a", "url": "test://?fps=9"}));
        let (draft, changed) = draft.edited(&three, &CameraEdit::Change(other)).unwrap();
        let steps = plan(&three, &changed);
        assert_eq!((steps.rebuilt.len(), steps.untouched), (1, 2));
        let (draft, two) = draft.edited(&changed, &CameraEdit::Remove(CameraId::new("c"))).unwrap();
        let left: Vec<&str> = two.cameras.iter().map(|camera| camera.id.as_str()).collect();
        assert_eq!((left, two.labels.len()), (vec!["a", "b"], 0));
        let (_, one) = draft.edited(&two, &CameraEdit::Remove(CameraId::new("a"))).unwrap();
        assert_eq!(one.cameras.len(), 1);
    }

    #[test]
    fn an_edit_is_checked_as_the_file_is() {
        let (draft, config) = start();
        let problems = |edit: CameraEdit| draft.edited(&config, &edit).unwrap_err().to_string();
        let add = |value: Value| problems(CameraEdit::Add(section(value)));
        let many = add(json!({"id": "c", "url": "gopher://x", "fps_max": -1, "colour": 3}));
        for part in ["camera[c].url: ", "camera[c].fps_max: give a number", "camera[c].colour: there is no such"] {
            assert!(many.contains(part), "{part} is not in {many}");
        }
        assert!(!many.contains("line "), "{many}");
        assert!(add(json!({"id": "a", "url": "test://"})).contains("there is a camera a already"));
        assert!(add(json!({"id": "a/b", "url": "test://"})).contains("give the camera's name"));
        assert!(add(json!({"url": "test://"})).contains("give the camera's name"));
        assert!(add(json!({"id": "c", "url": null})).contains("null"));
        let change = CameraEdit::Change(section(json!({"id": "z", "url": "test://"})));
        assert!(problems(change).contains("there is no camera z"));
        assert!(problems(CameraEdit::Remove(CameraId::new("z"))).contains("there is no camera z"));
    }

    #[test]
    fn the_last_camera_stays() {
        let (draft, config) = start();
        let (draft, one) = draft.edited(&config, &CameraEdit::Remove(CameraId::new("a"))).unwrap();
        let none = draft.edited(&one, &CameraEdit::Remove(CameraId::new("b"))).unwrap_err();
        assert!(none.to_string().contains("no camera"), "{none}");
    }
}
