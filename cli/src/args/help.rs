//! The words of `--help` that are not of one command: the commands by group, and an example for each group.

/// In place of clap's flat list, so that what belongs together stands together.
pub const TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Calling 召集:
  convene           call the chosen sites into a meeting, at once
  call-unconnected  呼叫未接通: call again those that are not on air
  add               call further sites into it
  hang-up           挂断: take sites out of it
  status            the meetings, or one with every site's state and reason
  end               end a meeting
    muster convene --subtree WH-EL --priority emergency --wait
Stage 主画面:
  mute, unmute      静音, 取消静音: of sites, or with --all 全体静音
  broadcast         广播会场: a site on the large picture of everyone
  watch-site        观看会场: a site on the chair's own
  layout            1, 1+7, 4, 9, 16, 25, 36 or 49 pictures on every wall
  polling           轮巡: on, off, pause, resume, turn
  voice-switching   声控切换: the large picture follows who speaks
  content           who shows content in its own place
    muster broadcast WH-EL-S01
Speaking 发言权:
  floor             申请发言: list, request, grant, take
  roll-call         点名: start, next, acknowledge, end, result
  attendance        who was on air when
    muster roll-call start --answer 10
Running a meeting 主席:
  chair             申请主席, 释放主席, 接管, 交还: request, release, give, refuse, take-over, hand-back
  lock, unlock      锁定会议: nobody new comes in
  extend            延长会议: let it end later
    muster chair take-over
Heard from the sites:
  report            上报: list, send
Prepared:
  preset            list, save, delete, convene
  schedule          list, save, delete
  drill             start, result
    muster preset save flood --unit WH-EL --subtree WH-EL --layout 16
Running the system:
  site, relay       import, list and let in; how sites answer
  account           list, put, grant, revoke, sessions, end-sessions
  refusals          what people were refused
  log               read, verify, replay
  watch             follow everything, a line of JSON each
  sign-in, sign-out
  demo              everything on this machine
    muster account grant li duty-officer WH-EL-01 --until +4h

Options:
{options}

{after-help}";

pub const CONVENE: &str = "\
Examples:
  muster convene --subtree WH-EL --tier street --wait
  muster convene --all --priority emergency --deadline 60 --minutes 90 --fallback audio
  muster call-unconnected
  muster add --site WH-EL-01-C001-S01";

pub const STAGE: &str = "\
Examples:
  muster broadcast WH-EL-S01                  muster broadcast --off
  muster mute --all                           muster unmute WH-EL-S01
  muster layout 1+7                           muster polling on --interval 10 --per-page 9
  muster polling turn previous                muster voice-switching on";

pub const FLOOR: &str = "\
Examples:
  muster floor list
  muster floor request --meeting ID --link https://HOST/join#SECRET
  muster floor grant WH-EL-01-C001-S01 --seconds 120
  muster floor take WH-EL-01-C001-S01";

pub const ROLL_CALL: &str = "\
Examples:
  muster roll-call start --answer 10
  muster roll-call acknowledge WH-EL-S01
  muster roll-call result --csv > roll-call.csv
  muster attendance --csv > attendance.csv";

pub const CHAIR: &str = "\
Examples:
  muster chair request                        muster chair give li
  muster chair take-over --meeting ID         muster chair hand-back";

pub const PLANS: &str = "\
Examples:
  muster preset save flood --unit WH-EL --subtree WH-EL --layout 16 --priority urgent
  muster preset convene ID --wait
  muster schedule save --preset ID --at 2026-02-05T14:00+08:00 --repeat daily
  muster drill start --subtree WH-EL --wait";

pub const ACCOUNTS: &str = "\
Examples:
  muster account put li --display-name 李 --new-password-file li.txt
  muster account grant li duty-officer WH-EL-01 --until +4h
  muster account end-sessions li";

pub const LOG: &str = "\
Examples:
  muster log read unit:WH-EL
  muster log verify
  muster log verify --print-heads > heads.txt
  muster log verify --against heads.txt
  muster log replay ID --at 2026-02-05T14:10+08:00
  muster watch --cursor cursor.json";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_groups_name_every_command_and_no_other() {
        let head = |line: &str| -> Vec<String> {
            let name = line
                .strip_prefix("  ")
                .filter(|name| name.starts_with(char::is_alphabetic));
            let names = name.and_then(|line| line.split("  ").next()).unwrap_or_default();
            names
                .split(", ")
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut named: Vec<_> = TEMPLATE.lines().flat_map(head).collect();
        let command = Cli::command();
        let mut built: Vec<_> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        named.sort();
        built.sort();
        assert_eq!(named, built);
    }

    #[test]
    fn every_example_can_be_parsed() {
        let all = [
            TEMPLATE, CONVENE, STAGE, FLOOR, ROLL_CALL, CHAIR, PLANS, ACCOUNTS, LOG,
        ];
        let lines = all.iter().flat_map(|text| text.lines());
        let mut count = 0;
        for line in lines.flat_map(|line| line.split("   ")).map(str::trim) {
            if line.starts_with("muster ") {
                let words = line.split(" > ").next().unwrap_or_default().split(' ');
                let parsed = <Cli as clap::Parser>::try_parse_from(words);
                assert!(
                    parsed.is_ok(),
                    "{line}: {}",
                    parsed.err().map(|e| e.to_string()).unwrap_or_default()
                );
                count += 1;
            }
        }
        assert!(count > 30, "{count}");
    }
}
