//! How a plan runs its course, whatever it is done to: what is due begins, what is over is given back, and both are noted.

use std::time::Duration;

use anyhow::{Result, bail};

use super::history::Deed;
use super::plan::{Fault, Plan, Step};
use crate::process::{Process, wait_until};
use crate::time::Mono;

/// The next fault begins or ends sooner than this.
const FAR: Duration = Duration::from_secs(120);

/// A fault that has not ended.
#[derive(Debug)]
pub(super) struct Active {
    deed: usize,
    pub(super) step: Step,
    pub(super) host: String,
    /// The other end of a link.
    pub(super) other: String,
    until: Mono,
    /// What keeps the cores busy.
    pub(super) burner: Option<Process>,
}

/// A fault that is not to be done now, and why.
pub(super) struct LeftOut(pub(super) String);

/// What has been done, and what of it goes on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) deeds: Vec<Deed>,
    active: Vec<Active>,
}

impl Faults {
    /// Whether one of `kinds` goes on at a host.
    pub(super) fn is_going(&self, kinds: &[Fault], host: &str) -> bool {
        let own = |active: &Active| active.host == host && kinds.contains(&active.step.fault);
        self.active.iter().any(own)
    }
}

/// What a plan is done to.
pub(super) trait Struck {
    fn faults(&mut self) -> &mut Faults;

    /// The host that a step strikes.
    fn host_of(&self, step: Step) -> Result<String>;

    /// Asks whatever must be known beforehand, and says what stands against the step.
    fn prepare(&mut self, step: Step, host: &str) -> Option<LeftOut>;

    fn inflict(&mut self, active: &mut Active) -> Result<()>;

    fn give_back(&mut self, active: &Active) -> Result<()>;

    /// Lets the time pass until the next fault begins or ends.
    fn wait_for(&mut self, at: Mono) -> Result<()> {
        wait_for(at)
    }
}

/// Does all of a plan; `told` hears of each step when its fault has begun or was left out.
pub(super) fn carry_out(
    struck: &mut impl Struck,
    plan: &Plan,
    origin: Mono,
    told: impl Fn(&Deed),
) -> Result<()> {
    let mut steps = plan.steps.iter().peekable();
    loop {
        let begin = steps.peek().map(|step| origin + step.at);
        let ends = struck.faults().active.iter().map(|active| active.until);
        let Some(next) = begin.into_iter().chain(ends).min() else { return Ok(()) };
        struck.wait_for(next)?;
        end_due(struck, false);
        if let Some(step) = steps.next_if(|step| origin + step.at <= Mono::now()) {
            begin_step(struck, *step)?;
            struck.faults().deeds.last().into_iter().for_each(&told);
        }
    }
}

/// Does one fault; what stands against it is noted in its deed.
fn begin_step(struck: &mut impl Struck, step: Step) -> Result<()> {
    let host = struck.host_of(step)?;
    let objection = struck.prepare(step, &host);
    // Questions take their time; the fault begins after them.
    let from = Mono::now();
    let mut active = Active {
        deed: struck.faults().deeds.len(),
        step,
        other: String::new(),
        until: from + step.length,
        host: host.clone(),
        burner: None,
    };
    let done = objection.is_none();
    let note = match objection {
        Some(LeftOut(why)) => Some(why),
        None => struck.inflict(&mut active).err().map(|error| format!("{error:#}")),
    };
    let faults = struck.faults();
    if done && step.length > Duration::ZERO {
        faults.active.push(active);
    }
    faults.deeds.push(Deed { fault: step.fault, host, from, to: Mono::now(), note, done });
    Ok(())
}

/// Ends the faults whose time is over; all of them when `all`. What fails is noted in their deeds.
pub(super) fn end_due(struck: &mut impl Struck, all: bool) {
    let now = Mono::now();
    let due = |active: &mut Active| all || active.until <= now;
    let over: Vec<Active> = struck.faults().active.extract_if(.., due).collect();
    for active in over {
        let outcome = struck.give_back(&active);
        let deed = &mut struck.faults().deeds[active.deed];
        deed.to = Mono::now();
        deed.note = outcome.err().map(|error| format!("{error:#}")).or(deed.note.take());
    }
}

/// Waits until an instant; the lab has no sleep.
pub(super) fn wait_for(at: Mono) -> Result<()> {
    let reached = || (Mono::now() >= at).then_some(());
    if at.since(Mono::now()) > FAR {
        bail!("the next fault is too far away");
    }
    wait_until("the next fault", FAR * 5 / 4, reached)
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;
    use crate::nemesis::plan::Role;

    #[derive(Default)]
    struct Told {
        faults: Faults,
        words: Vec<String>,
    }

    impl Struck for Told {
        fn faults(&mut self) -> &mut Faults {
            &mut self.faults
        }

        fn host_of(&self, step: Step) -> Result<String> {
            Ok(step.target.to_string())
        }

        fn prepare(&mut self, step: Step, _host: &str) -> Option<LeftOut> {
            (step.fault == Fault::Power).then(|| LeftOut("not now".to_owned()))
        }

        fn inflict(&mut self, active: &mut Active) -> Result<()> {
            self.words.push(format!("{} at {}", active.step.fault, active.host));
            ensure!(active.step.fault != Fault::Deaf, "no such link");
            Ok(())
        }

        fn give_back(&mut self, active: &Active) -> Result<()> {
            self.words.push(format!("end of {}", active.step.fault));
            Ok(())
        }
    }

    fn step(at: u64, fault: Fault, length: u64) -> Step {
        let (at, length) = (Duration::from_millis(at), Duration::from_millis(length));
        Step { at, fault, target: Role::Witness, length }
    }

    #[test]
    fn what_was_done_is_given_back_and_what_was_left_out_is_not() {
        let steps = vec![
            step(0, Fault::Cut, 30),
            step(5, Fault::Power, 5),
            step(10, Fault::DeleteVip, 0),
            step(15, Fault::Deaf, 5),
        ];
        let mut told = Told::default();
        let origin = Mono::now();
        carry_out(&mut told, &Plan { seed: 0, steps }, origin, |_| {}).unwrap();
        let (begun, ended): (Vec<&str>, Vec<&str>) =
            told.words.iter().map(String::as_str).partition(|word| !word.starts_with("end"));
        assert_eq!(
            begun,
            ["cut host off at witness", "delete VIP at witness", "make host deaf at witness"]
        );
        assert_eq!(ended.len(), 2, "{ended:?}");
        assert!(ended.contains(&"end of cut host off"), "{ended:?}");
        assert!(ended.contains(&"end of make host deaf"), "{ended:?}");
        assert!(told.faults.active.is_empty());
        let notes: Vec<_> = told.faults.deeds.iter().map(|deed| deed.note.as_deref()).collect();
        assert_eq!(notes, [None, Some("not now"), None, Some("no such link")]);
        assert!(told.faults.deeds[0].to >= origin + Duration::from_millis(30));
    }
}
