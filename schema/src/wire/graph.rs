//! The forms of the job graph.

use super::Wire;
use super::common::same_words;
use super::fields::{known, list, required, text, text_to_write, write_list};
use super::generated::job_capnp;
use super::generated::job_capnp::{edge, job_graph, operator_spec, vertex};
use crate::error::Result;
use crate::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};

same_words! { job_capnp::ExecutionMode { Streaming, Batch } }

same_words! {
    job_capnp::Partitioning { Forward, KeyGroup, Rebalance, Rescale, Broadcast, Shuffle, Global, Custom }
}

same_words! { job_capnp::Exchange { Pipelined, Blocking } }

impl Wire for OperatorSpec {
    type Form = operator_spec::Owned;

    fn write(&self, mut form: operator_spec::Builder<'_>) -> Result<()> {
        self.id.write(form.reborrow().init_id())?;
        form.set_uid(text_to_write("uid", &self.uid)?);
        form.set_name(text_to_write("name", &self.name)?);
        Ok(())
    }

    fn read(form: operator_spec::Reader<'_>) -> Result<Self> {
        Ok(OperatorSpec {
            id: required("id", form.has_id(), form.get_id())?,
            uid: text("uid", form.get_uid())?,
            name: text("name", form.get_name())?,
        })
    }
}

impl Wire for Vertex {
    type Form = vertex::Owned;

    fn write(&self, mut form: vertex::Builder<'_>) -> Result<()> {
        self.id.write(form.reborrow().init_id())?;
        form.set_name(text_to_write("name", &self.name)?);
        write_list("operators", &self.operators, |length| form.reborrow().init_operators(length))?;
        form.set_parallelism(self.parallelism);
        form.set_max_parallelism(self.max_parallelism);
        form.set_slot_sharing_group(text_to_write("slotSharingGroup", &self.slot_sharing_group)?);
        form.set_is_source(self.is_source);
        Ok(())
    }

    fn read(form: vertex::Reader<'_>) -> Result<Self> {
        Ok(Vertex {
            id: required("id", form.has_id(), form.get_id())?,
            name: text("name", form.get_name())?,
            operators: list("operators", form.get_operators())?,
            parallelism: form.get_parallelism(),
            max_parallelism: form.get_max_parallelism(),
            slot_sharing_group: text("slotSharingGroup", form.get_slot_sharing_group())?,
            is_source: form.get_is_source(),
        })
    }
}

impl Wire for Edge {
    type Form = edge::Owned;

    fn write(&self, mut form: edge::Builder<'_>) -> Result<()> {
        self.source.write(form.reborrow().init_source())?;
        self.target.write(form.reborrow().init_target())?;
        form.set_input(self.input);
        form.set_partitioning(self.partitioning.into());
        form.set_exchange(self.exchange.into());
        Ok(())
    }

    fn read(form: edge::Reader<'_>) -> Result<Self> {
        Ok(Edge {
            source: required("source", form.has_source(), form.get_source())?,
            target: required("target", form.has_target(), form.get_target())?,
            input: form.get_input(),
            partitioning: known("partitioning", form.get_partitioning())?,
            exchange: known("exchange", form.get_exchange())?,
        })
    }
}

impl Wire for JobGraph {
    type Form = job_graph::Owned;

    fn write(&self, mut form: job_graph::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_mode(self.mode.into());
        write_list("vertices", &self.vertices, |length| form.reborrow().init_vertices(length))?;
        write_list("edges", &self.edges, |length| form.reborrow().init_edges(length))
    }

    fn read(form: job_graph::Reader<'_>) -> Result<Self> {
        Ok(JobGraph {
            name: text("name", form.get_name())?,
            mode: known("mode", form.get_mode())?,
            vertices: list("vertices", form.get_vertices())?,
            edges: list("edges", form.get_edges())?,
        })
    }
}
