//! Where the channels lie in the activations between two layers.

use crate::nn::Conv2d;

/// The channels of some activations, with a `T` for each.
#[derive(Clone, Debug)]
pub(super) struct View<T> {
    pub(super) layout: Layout,
    pub(super) channels: Vec<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The network's input, of which nothing is known: it has no channels here.
    Unknown,
    /// Axis 1 of images.
    Images,
    /// The last axis.
    Features,
    /// Images made flat: each channel as often as an image has pixels, before the next.
    FlatImages,
    /// Rows made flat: all channels in turn, as often as there were rows.
    FlatFeatures,
}

impl<T: Clone> View<T> {
    pub(super) fn unknown() -> View<T> {
        View { layout: Layout::Unknown, channels: Vec::new() }
    }

    pub(super) fn images(channels: Vec<T>) -> View<T> {
        View { layout: Layout::Images, channels }
    }

    pub(super) fn features(channels: Vec<T>) -> View<T> {
        View { layout: Layout::Features, channels }
    }

    /// After [`Layer::Flatten`](crate::nn::Layer::Flatten).
    pub(super) fn flat(self) -> View<T> {
        let layout = match self.layout {
            Layout::Images => Layout::FlatImages,
            Layout::Features => Layout::FlatFeatures,
            already => already,
        };
        View { layout, ..self }
    }

    /// The `T` of each of `count` features along the last axis; `None` if that is not where the channels lie, or not so
    /// many.
    pub(super) fn by_feature(&self, count: usize) -> Option<Vec<T>> {
        let (channels, fits) = (self.channels.iter().cloned(), count.checked_rem(self.channels.len()) == Some(0));
        match self.layout {
            Layout::Features if count == self.channels.len() => Some(self.channels.clone()),
            Layout::FlatImages if fits => {
                let pixels = count / self.channels.len();
                Some(channels.flat_map(|channel| std::iter::repeat_n(channel, pixels)).collect())
            }
            Layout::FlatFeatures if fits => Some(channels.cycle().take(count).collect()),
            _ => None,
        }
    }

    /// The `T` of each of `count` channels of images; `None` if these are none, or not so many.
    pub(super) fn by_image_channel(&self, count: usize) -> Option<&[T]> {
        (self.layout == Layout::Images && self.channels.len() == count).then_some(&self.channels)
    }

    /// The sum with activations of the same shape, `f` of every pair of channels; `None` where they cannot be paired.
    pub(super) fn sum(&self, other: &View<T>, mut f: impl FnMut(&T, &T) -> T) -> Option<View<T>> {
        let mut pair = |a: &[T], b: &[T]| a.iter().zip(b).map(|(a, b)| f(a, b)).collect();
        if self.layout == other.layout && self.channels.len() == other.channels.len() {
            return Some(View { layout: self.layout, channels: pair(&self.channels, &other.channels) });
        }
        let count = [self, other].into_iter().find(|view| view.layout == Layout::Features)?.channels.len();
        Some(View::features(pair(&self.by_feature(count)?, &other.by_feature(count)?)))
    }
}

/// Whether each input channel has filters of its own, so that channels pass through.
pub(super) fn is_depthwise(conv: &Conv2d) -> bool {
    conv.groups > 1 && conv.groups == conv.in_channels()
}
