//! Changes while the daemon runs: the file read again, commands by MQTT. Whole or not at all: what is not right in every
//! part, or needs a restart in one, changes nothing.

use std::time::Instant;

use super::{Daemon, json};
use crate::cmd::wanted_card;
use crate::config::{self, CameraEdit, Config, Draft, Plan, Problem, WHOLE_FILE};
use crate::engine::{Manifest, ManifestError};
use crate::event::NoticeKind;
use crate::frame::CameraId;
use crate::publish::{Acknowledgement, Command, Reply, Request};
use crate::systemd;

/// Problems told in a notice; the log and the acknowledgement have them all.
const TOLD_MAX: usize = 50;

/// Why nothing was changed.
#[derive(Debug)]
pub(super) struct Refused {
    error: String,
    problems: Vec<Problem>,
}

/// What was done, or why nothing.
pub(super) type Outcome = Result<String, Refused>;

impl Refused {
    pub(super) fn new(error: String, problems: Vec<Problem>) -> Self {
        Self { error, problems }
    }

    /// One sentence with every problem.
    fn sentence(&self) -> String {
        let mut lines: Vec<String> = self.problems.iter().take(TOLD_MAX).map(line).collect();
        match self.problems.len().saturating_sub(TOLD_MAX) {
            0 => {}
            more => lines.push(format!("and {more} more")),
        }
        if lines.is_empty() { self.error.clone() } else { format!("{}: {}", self.error, lines.join("; ")) }
    }
}

/// `line 7: camera[gate].fps_max: give …`.
fn line(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let setting = if problem.path == WHOLE_FILE { String::new() } else { format!("{}: ", problem.path) };
    format!("{line}{setting}{}", problem.text)
}

impl Daemon<'_> {
    /// Carries out a command and acknowledges it.
    pub(super) fn obey(&mut self, request: Request) {
        let Request { command, reply } = request;
        let outcome = match &command {
            Command::SetEnabled { camera, on } => self.switch(camera, *on),
            Command::Reload => self.reload(),
            Command::Camera(edit) => self.edit(edit),
            // Acknowledged when it is there.
            Command::Snapshot { camera } => return self.ask_for_picture(camera, reply),
        };
        self.acknowledge(reply, outcome);
    }

    pub(super) fn acknowledge(&self, reply: Option<Reply>, outcome: Outcome) {
        let Some(reply) = reply else { return };
        let acknowledgement = match outcome {
            Ok(text) => Acknowledgement::done(&reply.name, text),
            Err(refused) => Acknowledgement::refused(&reply.name, refused.error, &refused.problems),
        };
        self.publisher.acknowledge(reply, &acknowledgement);
    }

    fn switch(&self, camera: &CameraId, on: bool) -> Outcome {
        let word = if on { "on" } else { "off" };
        if self.graph.set_enabled(camera, on) {
            tracing::info!(%camera, "switched {word} by MQTT");
            return Ok(format!("camera {camera} is switched {word} until the next start"));
        }
        self.refuse("enabled/set", Refused::new(format!("there is no camera {camera}"), Vec::new()))
    }

    /// Reads the file again.
    pub(super) fn reload(&mut self) -> Outcome {
        // Before READY=1 the service manager knows no reload.
        let is_told = self.info.is_some() || self.told_build.is_some();
        if is_told {
            systemd::reloading();
        }
        let outcome = self.reload_file();
        let text = match &outcome {
            Ok(done) => {
                tracing::info!("the configuration was read again: {done}");
                format!("the configuration was read again: {done}")
            }
            Err(refused) => {
                tracing::error!("the configuration that holds stays: {}", refused.error);
                for problem in &refused.problems {
                    tracing::error!("{}: {}", self.path.display(), line(problem));
                }
                format!("the configuration that holds stays: {}", refused.sentence())
            }
        };
        self.publisher.notice(NoticeKind::ReloadResult, None, text);
        if is_told {
            systemd::ready(self.ready.as_ref().err().map_or("running", String::as_str));
        }
        outcome
    }

    fn reload_file(&mut self) -> Outcome {
        let wrong = |problems: Vec<Problem>| {
            let count = problems.len();
            Refused::new(format!("{}: {count} problem(s)", self.path.display()), problems)
        };
        let mut found = config::inspect(&self.path);
        let draft = found.take_draft();
        let mut problems = std::mem::take(&mut found.problems);
        let mut same_model = true;
        if let Some(engine) = &found.engine {
            match Manifest::load(&engine.manifest) {
                Ok(manifest) => {
                    problems.extend(config::unknown_labels(&found.labels, &manifest.labels));
                    same_model = manifest.overridden(engine) == self.manifest;
                }
                Err(error) => problems.extend(manifest_problems(&error)),
            }
        }
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
            return Err(wrong(problems));
        }
        let config = found.into_config().map_err(|problems| wrong(problems.0))?;
        let mut plan = config::plan(&self.config, &config);
        if !same_model && !plan.restart.contains(&"engine") {
            plan.restart.push("engine.manifest");
        }
        self.apply(&plan, config, draft.unwrap_or_else(|| self.draft.clone()))
    }

    /// Adds, changes or removes a camera by the file's own checks.
    fn edit(&mut self, edit: &CameraEdit) -> Outcome {
        let made = self.draft.edited(&self.config, edit);
        let outcome = match made {
            Err(problems) => Err(Refused::new("the camera is not as it must be".to_owned(), problems.0)),
            Ok((draft, config)) => match config::unknown_labels(&config.labels, &self.manifest.labels) {
                unknown if unknown.is_empty() => {
                    let plan = config::plan(&self.config, &config);
                    self.apply(&plan, config, draft)
                }
                unknown => Err(Refused::new("the model has not all of its labels".to_owned(), unknown)),
            },
        };
        match outcome {
            Ok(done) => {
                let text = format!("{done}; until the next start or reload");
                tracing::info!("cameras changed by MQTT: {text}");
                self.publisher.notice(NoticeKind::CamerasChanged, None, format!("cameras changed by MQTT: {text}"));
                Ok(text)
            }
            Err(refused) => self.refuse("camera", refused),
        }
    }

    pub(super) fn refuse(&self, name: &str, refused: Refused) -> Outcome {
        let text = format!("{name}: {}", refused.sentence());
        tracing::warn!("command refused: {text}");
        self.publisher.notice(NoticeKind::CommandRefused, None, text);
        Err(refused)
    }

    fn apply(&mut self, plan: &Plan, config: Config, draft: Draft) -> Outcome {
        if !plan.restart.is_empty() {
            let text = "this needs a restart: nothing of the new configuration holds until then";
            let problem = |path: &&str| Problem { line: None, path: (*path).to_owned(), text: text.to_owned() };
            let names = plan.restart.join(", ");
            let problems = plan.restart.iter().map(problem).collect();
            return Err(Refused::new(format!("what changed of {names} needs a restart"), problems));
        }
        if !self.graph.has_room_for(plan.added.len() + plan.rebuilt.len()) {
            let text =
                "the model is not open yet, and too many cameras came and went since the start: try again later";
            return Err(Refused::new(text.to_owned(), Vec::new()));
        }
        for camera in &plan.added {
            self.publisher.greet_camera(&camera.id, wanted_card(&config, camera));
        }
        // It may wait for 7 s, of the 9 that the service manager does.
        self.feed(Instant::now());
        self.graph.apply(plan, &config, self.around);
        self.feed(Instant::now());
        for id in &plan.removed {
            self.publisher.forget_camera(id);
            self.told.remove(id);
        }
        for camera in plan.rebuilt.iter().chain(&plan.rules) {
            let card = wanted_card(&config, camera);
            if !card.snapshots {
                self.publisher.forget_snapshot(&camera.id);
            }
            self.publisher.welcome_camera(&camera.id, card);
        }
        for id in plan.removed.iter().chain(plan.rebuilt.iter().map(|camera| &camera.id)) {
            self.monitor.forget(id);
        }
        (self.config, self.draft) = (config, draft);
        if let Some(info) = &mut self.info {
            info.config.clone_from(&self.config.hash);
            info.cameras = self.config.cameras.iter().map(|camera| camera.id.as_str().to_owned()).collect();
            self.publisher.retain(self.topics.info(), json(info));
        }
        Ok(plan.summary())
    }
}

/// Those of the engine's manifest; their lines are of that file, and so stand in the text.
fn manifest_problems(error: &ManifestError) -> Vec<Problem> {
    let path = "engine.manifest".to_owned();
    match error {
        ManifestError::Invalid { path: file, problems } => {
            let text = |problem: &Problem| format!("{}: {}", file.display(), line(problem));
            problems.0.iter().map(|p| Problem { line: None, path: path.clone(), text: text(p) }).collect()
        }
        ManifestError::Read { .. } | ManifestError::Sha256 { .. } => {
            vec![Problem { line: None, path, text: error.to_string() }]
        }
    }
}
