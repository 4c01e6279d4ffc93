//! A stream that every task sees whole, and that leaves maps there for the records of another stream.

use flott_schema::Error;

use super::connected::TwoInputs;
use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::function::Prototype;
use crate::key::{Key, KeySelector};
use crate::operators::broadcast::{
    BroadcastFirst, BroadcastProcess, BroadcastProcessFunction, BroadcastState, DeclaredState,
    KeyedBroadcastProcess, KeyedBroadcastProcessFunction,
};
use crate::types::check_key_type;

/// A stream broadcast to all tasks of the operator to come, with the maps it may write there.
pub struct BroadcastStream<B> {
    stream: DataStream<B>,
    states: Vec<DeclaredState>,
}

impl<B: Record> BroadcastStream<B> {
    /// One more map.
    pub fn with_state<K: Key, V: Record>(mut self, state: &BroadcastState<K, V>) -> Self {
        let env = self.stream.env();
        let place = format!("broadcast state '{}'", state.name());
        if let Err(unstable) = check_key_type::<K>(&place) {
            env.add_error(Error::graph(unstable.to_string()));
        }
        if self.states.iter().any(|other| other.name() == state.name()) {
            env.add_error(Error::graph(format!("{place} is declared twice; give each map its own name")));
        }
        self.states.push(state.declare());
        self
    }
}

/// A stream beside a broadcast one.
pub struct BroadcastConnectedStream<T, B> {
    inputs: TwoInputs<T, B>,
    states: Vec<DeclaredState>,
}

impl<T: Record, B: Record> BroadcastConnectedStream<T, B> {
    /// Processes records by what the broadcast stream has said.
    pub fn process<O: Record>(&self, function: impl BroadcastProcessFunction<T, B, O>) -> DataStream<O> {
        let (function, states) = (Prototype::new(function), self.states.clone());
        self.inputs.transform("Broadcast Process", move |ctx| {
            Ok(BroadcastFirst::new(BroadcastProcess::new(function.get(), &states, ctx), ctx))
        })
    }
}

/// A keyed stream beside a broadcast one.
pub struct KeyedBroadcastConnectedStream<T, S, B> {
    inputs: TwoInputs<T, B>,
    selector: Prototype<S>,
    states: Vec<DeclaredState>,
}

impl<T: Record, S: KeySelector<T>, B: Record> KeyedBroadcastConnectedStream<T, S, B> {
    /// Processes records by what the broadcast stream has said, with state and timers of their key.
    pub fn process<O: Record>(
        &self,
        function: impl KeyedBroadcastProcessFunction<S::Key, T, B, O>,
    ) -> DataStream<O> {
        let (selector, states) = (Prototype::new(self.selector.get()), self.states.clone());
        let function = Prototype::new(function);
        self.inputs.transform("Keyed Broadcast Process", move |ctx| {
            let operator = KeyedBroadcastProcess::new(selector.get(), function.get(), &states, ctx);
            Ok(BroadcastFirst::new(operator, ctx))
        })
    }
}

impl<T: Record> DataStream<T> {
    /// Broadcasts the stream to every task of an operator, where it may write the map `state`. Connect it to the
    /// stream it is for: `readings.connect_broadcast(&rules.broadcast_state(&state)).process(function)`.
    pub fn broadcast_state<K: Key, V: Record>(&self, state: &BroadcastState<K, V>) -> BroadcastStream<T> {
        BroadcastStream { stream: self.broadcast(), states: Vec::new() }.with_state(state)
    }

    /// Reads this stream beside a broadcast one. In streaming execution nothing is said about the order between them;
    /// in batch execution all of the broadcast stream comes first.
    pub fn connect_broadcast<B: Record>(
        &self,
        broadcast: &BroadcastStream<B>,
    ) -> BroadcastConnectedStream<T, B> {
        BroadcastConnectedStream {
            inputs: TwoInputs::new("connect_broadcast", self, &broadcast.stream),
            states: broadcast.states.clone(),
        }
    }
}

impl<T: Record, S: KeySelector<T>> KeyedStream<T, S> {
    /// Reads this stream beside a broadcast one. In streaming execution nothing is said about the order between them;
    /// in batch execution all of the broadcast stream comes first.
    pub fn connect_broadcast<B: Record>(
        &self,
        broadcast: &BroadcastStream<B>,
    ) -> KeyedBroadcastConnectedStream<T, S, B> {
        let keyed = self.keyed(self.stream());
        KeyedBroadcastConnectedStream {
            inputs: TwoInputs::new("connect_broadcast", &keyed, &broadcast.stream),
            selector: Prototype::new(self.selector()),
            states: broadcast.states.clone(),
        }
    }
}
