//! Alarms: conditions of the whole cluster under which requests are refused.

use crate::error::OpenError;
use bytes::Bytes;
use chronolith_engine::{ColumnId, Engine, KeyRange, Overlay};
use chronolith_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, alarm_request::AlarmAction,
};
use std::collections::BTreeSet;

/// What the keys of alarms begin with: prefix, type (4, big endian), member (8, big endian).
const PREFIX: &[u8] = b"alarm/";

/// The alarms that are on: type and member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    pub(crate) fn load(engine: &dyn Engine, column: ColumnId) -> Result<Self, OpenError> {
        let mut after = PREFIX.to_vec();
        *after.last_mut().expect("the prefix is not empty") += 1;
        let range = KeyRange::half_open(Bytes::from_static(PREFIX), after.into());
        let snapshot = engine.snapshot()?;
        let mut cursor = snapshot.cursor(column, range)?;
        let mut alarms = BTreeSet::new();
        cursor.seek_to_first()?;
        while cursor.valid() {
            let alarm = decode(cursor.key()).ok_or(OpenError::CorruptRecord { what: "alarm" })?;
            alarms.insert(alarm);
            cursor.next()?;
        }
        Ok(Self(alarms))
    }

    pub(crate) fn is_on(&self, alarm: AlarmType) -> bool {
        self.0.iter().any(|(on, _)| *on == alarm as i32)
    }

    /// The alarms of this type that are on, or all of them.
    pub(crate) fn list(&self, alarm: AlarmType) -> Vec<AlarmMember> {
        let chosen =
            self.0.iter().filter(|(on, _)| alarm == AlarmType::None || *on == alarm as i32);
        chosen
            .map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm })
            .collect()
    }

    /// Carries out a request; answers with the alarms that it named and that were or are on.
    pub(crate) fn apply(
        &mut self,
        request: &AlarmRequest,
        batch: &mut Overlay,
        column: ColumnId,
    ) -> Vec<AlarmMember> {
        let alarm = (request.alarm, request.member_id);
        let changed = match request.action() {
            AlarmAction::Get => return self.list(request.alarm()),
            _ if request.alarm() == AlarmType::None => return Vec::new(),
            AlarmAction::Activate => {
                self.0.insert(alarm);
                batch.put(column, encode(alarm), Bytes::new());
                true
            }
            AlarmAction::Deactivate => {
                batch.delete(column, encode(alarm));
                self.0.remove(&alarm)
            }
        };
        let member = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        Vec::from_iter(changed.then_some(member))
    }
}

fn encode((alarm, member): (i32, u64)) -> Vec<u8> {
    [PREFIX, &alarm.to_be_bytes(), &member.to_be_bytes()].concat()
}

fn decode(key: &[u8]) -> Option<(i32, u64)> {
    let (alarm, member) = key.strip_prefix(PREFIX)?.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*alarm), u64::from_be_bytes(member.try_into().ok()?)))
}
