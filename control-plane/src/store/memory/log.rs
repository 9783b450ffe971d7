//! Streams of events, meetings and claims, in memory.

use super::*;

#[async_trait]
impl LogStore for Memory {
    async fn append(&self, append: &Append) -> Result<ChainHead> {
        let result = self.enter().await?.append(append);
        self.leave(result).await
    }

    async fn events_page(&self, stream: &str, seq: u64, limit: i64) -> Result<Vec<StoredEvent>> {
        let state = self.enter().await?;
        let events = state.streams.get(stream).into_iter().flatten();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(events
            .filter(|event| event.seq > seq)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn head(&self, stream: &str) -> Result<ChainHead> {
        Ok(self.enter().await?.head(stream))
    }

    async fn streams(&self) -> Result<Vec<String>> {
        let state = self.enter().await?;
        let names = state
            .streams
            .keys()
            .chain(state.heads.keys())
            .chain(state.meetings.keys());
        Ok(names.cloned().collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn kept_head(&self, stream: &str) -> Result<Option<ChainHead>> {
        Ok(self.enter().await?.heads.get(stream).copied())
    }

    async fn kept_meeting(&self, meeting: &str) -> Result<Option<KeptMeeting>> {
        let state = self.enter().await?;
        Ok(state.meetings.get(meeting).map(|kept| KeptMeeting {
            title: kept.row.title.clone(),
            unit: kept.row.unit.clone(),
            chair: kept.row.chair.clone(),
            started_ms: kept.row.started_ms,
            ended_ms: kept.ended.as_ref().map(|ended| ended.ended_ms),
            final_state: kept.ended.as_ref().map(|ended| ended.final_state.clone()),
            damaged: kept.damaged.clone(),
        }))
    }

    async fn meetings_begun(&self, after: u64, limit: i64) -> Result<Vec<(u64, String)>> {
        let state = self.enter().await?;
        let numbers = state.meetings.iter().map(|(id, kept)| (kept.number, id.clone()));
        let mut begun: Vec<_> = numbers.filter(|(number, _)| *number > after).collect();
        begun.sort();
        begun.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(begun)
    }

    async fn meeting_number(&self, meeting: &str) -> Result<Option<u64>> {
        Ok(self.enter().await?.meetings.get(meeting).map(|kept| kept.number))
    }

    async fn last_meeting(&self) -> Result<u64> {
        Ok(self.enter().await?.meetings.len() as u64)
    }

    async fn quarantine(&self, meeting: &str, reason: &str) -> Result<()> {
        let mut state = self.enter().await?;
        if let Some(kept) = state.meetings.get_mut(meeting) {
            kept.damaged.get_or_insert_with(|| reason.to_owned());
        }
        state.claims.retain(|_, (held_by, _)| held_by != meeting);
        Ok(())
    }

    async fn damaged_meetings(&self, limit: i64) -> Result<Vec<DamagedMeeting>> {
        let state = self.enter().await?;
        let damaged = |meeting: &Meeting| {
            Some(DamagedMeeting {
                id: meeting.row.id.clone(),
                title: meeting.row.title.clone(),
                unit: meeting.row.unit.clone(),
                chair: meeting.row.chair.clone(),
                started_ms: meeting.row.started_ms,
                reason: meeting.damaged.clone()?,
            })
        };
        let mut rows: Vec<_> = state.meetings.values().filter_map(damaged).collect();
        rows.sort_by(|a, b| (b.started_ms, &a.id).cmp(&(a.started_ms, &b.id)));
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    async fn live_heads(&self) -> Result<Vec<LiveHead>> {
        let state = self.enter().await?;
        let mut live: Vec<&Meeting> = state
            .meetings
            .values()
            .filter(|m| m.ended.is_none() && m.damaged.is_none())
            .collect();
        live.sort_by(|a, b| (a.row.started_ms, &a.row.id).cmp(&(b.row.started_ms, &b.row.id)));
        let heads = live.into_iter().map(|meeting| LiveHead {
            meeting: meeting.row.id.clone(),
            seq: state.head(&meeting.row.id).seq,
        });
        Ok(heads.collect())
    }

    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let state = self.enter().await?;
        let mut ended: Vec<(i64, &String, &EndedRow)> = state
            .meetings
            .values()
            .filter_map(|meeting| Some((-meeting.row.started_ms, &meeting.row.id, meeting.ended.as_ref()?)))
            .collect();
        ended.sort_by_key(|(started, id, _)| (*started, *id));
        let limit = usize::try_from(limit).unwrap_or_default();
        Ok(ended
            .into_iter()
            .skip(usize::try_from(offset).unwrap_or_default())
            .take(limit)
            .map(|(_, id, ended)| (id.clone(), Some(ended.final_state.clone())))
            .collect())
    }

    async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>> {
        let state = self.enter().await?;
        let ended = state
            .meetings
            .get(meeting)
            .and_then(|meeting| meeting.ended.as_ref());
        Ok(ended.map(|ended| ended.final_state.clone()))
    }

    async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>> {
        let state = self.enter().await?;
        let found = state.meetings.values().find(|meeting| {
            meeting.row.chair == chair && meeting.row.idempotency_key.as_deref() == Some(key)
        });
        Ok(found.map(|meeting| meeting.row.id.clone()))
    }

    async fn claims(&self) -> Result<Vec<Claim>> {
        let state = self.enter().await?;
        let claims = state.claims.iter().map(|(site, (meeting, priority))| Claim {
            site: site.clone(),
            meeting: meeting.clone(),
            priority: *priority,
        });
        Ok(claims.collect())
    }

    async fn claimed_by_others(&self, meeting: &str, sites: &[String]) -> Result<Vec<String>> {
        let state = self.enter().await?;
        let others = |site: &&String| state.claims.get(*site).is_some_and(|(by, _)| by != meeting);
        Ok(sites.iter().filter(others).cloned().collect())
    }
}
