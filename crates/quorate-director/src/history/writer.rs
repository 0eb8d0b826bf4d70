//! Writes changes to disk on a thread of its own, because a disk may stall and the loop may not.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use quorate_core::ids::Position;

use super::batch::Batch;
use super::segments::Segments;

/// Batches that may wait for the disk: at some hundred entries a second, several seconds of it.
const WAITING_MAX: usize = 4096;

enum Order {
    Write(Arc<Batch>),
    Gap(Position),
}

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// Changes that the disk was too slow for.
    lost: u64,
}

impl Writer {
    pub(super) fn start(segments: Arc<Segments>) -> std::io::Result<Self> {
        let (orders, received) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_all(&received, &segments))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            lost: 0,
        })
    }

    pub(super) fn write(&mut self, batch: Arc<Batch>) {
        let count = batch.len() as u64;
        self.order(Order::Write(batch), count);
    }

    pub(super) fn gap(&mut self, position: Position) {
        self.order(Order::Gap(position), 0);
    }

    fn order(&mut self, order: Order, changes: u64) {
        let Some(orders) = &self.orders else {
            return;
        };
        match orders.try_send(order) {
            Ok(()) if self.lost > 0 => {
                tracing::warn!(
                    changes = self.lost,
                    "history was lost: the disk is too slow"
                );
                self.lost = 0;
            }
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += changes,
        }
    }

    /// Writes what is waiting and ends.
    pub(super) fn close(mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the history thread has panicked");
        }
    }
}

fn write_all(orders: &Receiver<Order>, segments: &Segments) {
    let mut failing = false;
    while let Ok(order) = orders.recv() {
        let written = match order {
            Order::Gap(position) => segments.forget_before(position),
            Order::Write(batch) => {
                let lines = batch.lines().map_err(Into::into);
                lines.and_then(|lines| segments.append(batch.first().position, &lines))
            }
        };
        match written {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "history cannot be written"
                );
            }
            Err(_) => {}
        }
    }
}
