//! Histograms of a capture as HdrHistograms.

use autolock_capture::layout;
use hdrhistogram::Histogram;

use super::super::bytes::get;
use super::super::model::{Distribution, Values};
use super::{Builder, HIGHEST, take};

impl Builder<'_> {
    /// The values of histogram `index`. Each row serves once: 1 KiB in the file is never many histograms here.
    pub(super) fn histogram(&mut self, index: u32) -> Values {
        if let Some(known) = self.histograms.get(&index) {
            return known.clone();
        }
        let values = self.read_histogram(index);
        self.histograms.insert(index, values.clone());
        values
    }

    fn read_histogram(&mut self, index: u32) -> Values {
        let empty = Distribution::empty().histogram;
        let Some(item) = self.file.items::<layout::Histogram>().get(u64::from(index)) else {
            self.damage.rows += 1;
            return empty;
        };
        let mut rows = Vec::new();
        let numbers = get!(item, layout::Histogram, rows);
        for (number, row) in numbers.into_iter().enumerate().filter(|&(_, row)| row != 0) {
            let item = self.file.items::<layout::Row>().get(u64::from(row));
            let item = item.filter(|_| self.rows_taken.insert(row));
            match item {
                Some(item) => rows.push((number, item)),
                None => self.damage.rows += 1,
            }
        }
        let Some(&(last, _)) = rows.last() else {
            return empty;
        };
        // As long as its last row needs, for there may be very many.
        let highest = layout::lowest(last, layout::ROW - 1) + (1 << last.saturating_sub(1)) - 1;
        let bytes = (last as u64 + 2) * size_of::<layout::Row>() as u64;
        let made = Histogram::new_with_bounds(1, highest.clamp(2, HIGHEST), 2);
        let Some(mut values) = made.ok().filter(|_| take(&mut self.room.histograms, bytes)) else {
            self.damage.rows += rows.len() as u64;
            return empty;
        };
        // What is added later may be larger.
        values.auto(true);
        for (number, row) in rows {
            let counts = get!(row, layout::Row, counts);
            let mut whole = true;
            for (counter, count) in counts.into_iter().enumerate().filter(|&(_, n)| n != 0) {
                whole &= take(&mut self.room.values, count)
                    && values
                        .record_n(layout::lowest(number, counter), count)
                        .is_ok();
            }
            self.damage.rows += u64::from(!whole);
        }
        values.into()
    }
}
