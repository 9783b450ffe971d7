//! The tree and who was seen, in memory.

use super::*;

#[async_trait]
impl DirectoryStore for Memory {
    async fn units(&self) -> Result<Vec<UnitRow>> {
        Ok(self.enter().await?.units.clone())
    }

    async fn each_site(&self, take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> Result<()> {
        self.enter().await?.sites.iter().cloned().try_for_each(take)
    }

    async fn put_directory(&self, units: &[UnitRow], sites: &[SiteRow]) -> Result<()> {
        self.enter().await?.put_directory(units, sites);
        Ok(())
    }

    async fn seen(&self) -> Result<Vec<SeenRow>> {
        Ok(self.enter().await?.seen.values().cloned().collect())
    }

    async fn put_seen(&self, rows: &[SeenRow]) -> Result<()> {
        let mut state = self.enter().await?;
        let known: BTreeSet<String> = state.sites.iter().map(|site| site.id.clone()).collect();
        for row in rows.iter().filter(|row| known.contains(&row.site)) {
            state.seen.insert(row.site.clone(), row.clone());
        }
        Ok(())
    }
}
