//! Changes of units: presets, schedules, drills and what else an administrator does, in memory.

use super::*;

#[async_trait]
impl PlanStore for Memory {
    async fn append_unit(&self, append: &UnitAppend) -> Result<ChainHead> {
        let result = {
            let mut state = self.enter().await?;
            let chained = state.chain(&append.stream, append.head, &append.events);
            let checked = append.effects.iter().try_for_each(|effect| state.check(effect));
            match (chained, checked) {
                (Ok((head, events)), Ok(())) => {
                    state.extend(&append.stream, events, head);
                    for (done, effect) in (1..).zip(append.effects.clone()) {
                        state.carry_out(effect);
                        if let Some(progress) = &append.progress {
                            progress.send_replace(done);
                        }
                    }
                    Ok(head)
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            }
        };
        self.leave(result).await
    }

    async fn presets(&self) -> Result<Vec<PresetRow>> {
        Ok(self.enter().await?.presets.values().cloned().collect())
    }

    async fn preset(&self, id: &str) -> Result<Option<PresetRow>> {
        Ok(self.enter().await?.presets.get(id).cloned())
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        Ok(self.enter().await?.schedules.values().cloned().collect())
    }

    async fn schedule(&self, id: &str) -> Result<Option<ScheduleRow>> {
        Ok(self.enter().await?.schedules.get(id).cloned())
    }

    async fn due_schedules(&self, now_ms: i64) -> Result<Vec<ScheduleRow>> {
        let state = self.enter().await?;
        let due = |row: &&ScheduleRow| row.next_ms > 0 && row.next_ms <= now_ms;
        let mut rows: Vec<_> = state.schedules.values().filter(due).cloned().collect();
        rows.sort_by(|a, b| (a.next_ms, &a.id).cmp(&(b.next_ms, &b.id)));
        Ok(rows)
    }

    async fn drills(&self, limit: i64) -> Result<Vec<DrillRow>> {
        let mut rows: Vec<_> = self.enter().await?.drills.values().cloned().collect();
        rows.sort_by(|a, b| (b.started_ms, &a.id).cmp(&(a.started_ms, &b.id)));
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    async fn drill(&self, id: &str) -> Result<Option<DrillRow>> {
        Ok(self.enter().await?.drills.get(id).cloned())
    }
}
