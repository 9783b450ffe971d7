//! Who has the chair, who comes in, and until when it lasts.
//!
//! A meeting always has a chair: one that gives it up needs somebody to have it, and it never goes to an account whose
//! roles do not cover the meeting any more. Who may have it, and whether an account may take a meeting over at all, was
//! decided by authority before and is told with the command.

use super::decide::check_number;
use super::{Able, ChairCause, Event, MAX_CHAIR_REQUESTS, Meeting};
use crate::authority::Action;
use crate::ids::{AccountName, Millis};
use crate::refusal::Refusal;

/// The longest extension at once, in minutes.
const MAX_EXTENSION: i64 = 7 * 24 * 60;

impl Meeting {
    pub(super) fn request_chair(
        &self,
        by: AccountName,
        withdraw: bool,
        held: bool,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if !withdraw && self.chair() == Some(&by) {
            return Err(Refusal::IsTheChair);
        }
        if !withdraw && !held {
            // Nobody is there who could grant it.
            return Ok(self.chair_to(by, ChairCause::Granted));
        }
        let has_requested = self.chair_requests().contains(&by);
        if has_requested != withdraw {
            return Ok(Vec::new());
        }
        if !withdraw && self.chair_requests().len() >= MAX_CHAIR_REQUESTS {
            return Err(Refusal::TooManyChairRequests);
        }
        Ok(vec![Event::ChairRequested {
            account: by,
            withdrawn: withdraw,
        }])
    }

    pub(super) fn answer_chair_request(
        &self,
        account: AccountName,
        granted: bool,
        able: &Able,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.chair() == Some(&account) && granted {
            return Ok(Vec::new());
        }
        if !self.chair_requests().contains(&account) {
            return Err(Refusal::NotRequested(account));
        }
        if granted && !able.contains(&account) {
            return Err(Refusal::MayNotChair(account));
        }
        if granted {
            return Ok(self.chair_to(account, ChairCause::Granted));
        }
        Ok(vec![Event::ChairRequested {
            account,
            withdrawn: true,
        }])
    }

    pub(super) fn release_chair(&self, by: &AccountName, able: &Able) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.chair() != Some(by) {
            return Err(Refusal::NotTheChair {
                action: Action::ReleaseChair,
            });
        }
        let by_right = self.taken_from.iter().rev().chain(self.convened_by());
        let mut next = self.chair_requests().iter().chain(by_right);
        match next.find(|next| *next != by && able.contains(*next)) {
            Some(next) => Ok(self.chair_to(next.clone(), ChairCause::Released)),
            None => Err(Refusal::NobodyToChair),
        }
    }

    pub(super) fn take_over(&self, by: AccountName) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.chair() == Some(&by) {
            return Ok(Vec::new());
        }
        Ok(self.chair_to(by, ChairCause::TakenOver))
    }

    pub(super) fn hand_back(&self, by: &AccountName, able: &Able) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.chair() != Some(by) {
            return Err(Refusal::NotTheChair {
                action: Action::HandBack,
            });
        }
        let last = self.taken_from().ok_or(Refusal::NotTakenOver)?;
        let mut before = self.taken_from.iter().rev();
        match before.find(|before| able.contains(*before)) {
            Some(before) => Ok(self.chair_to(before.clone(), ChairCause::HandedBack)),
            None => Err(Refusal::MayNotChair(last.clone())),
        }
    }

    pub(super) fn lock(&self, locked: bool, mut desks: Vec<AccountName>) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.is_locked() == locked {
            return Ok(Vec::new());
        }
        desks.sort();
        desks.dedup();
        if !locked {
            desks.clear();
        }
        Ok(vec![Event::LockChanged { locked, desks }])
    }

    pub(super) fn extend(&self, minutes: u32, now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        check_number("minutes", i64::from(minutes), 1..=MAX_EXTENSION)?;
        let ends = self.terms().ends_at.ok_or(Refusal::NoEnd)?;
        let ends_at = ends.max(now).plus(i64::from(minutes) * 60_000);
        Ok(vec![Event::EndSet { ends_at }])
    }

    fn chair_to(&self, chair: AccountName, cause: ChairCause) -> Vec<Event> {
        let before = self.chair().cloned().into_iter();
        before
            .map(|before| Event::ChairChanged {
                chair: chair.clone(),
                before,
                cause,
            })
            .collect()
    }
}
