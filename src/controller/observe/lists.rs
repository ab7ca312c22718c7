//! Lists of any size, looked at item by item: of a whole namespace nothing is held but what is made of it.

use std::ops::ControlFlow;
use std::pin::pin;

use futures::AsyncBufReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{ListParams, Request};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use super::items::{Item, Items};
use crate::core::selection::kind::Kind;

/// Objects of the first page of a list, and bytes and objects of the others.
const FIRST_PAGE: u32 = 25;
const FIRST_PAGE_OF_METADATA: u32 = 100;
const PAGE_BYTES: usize = 4 << 20;
const MOST_OF_A_PAGE: u32 = 500;

/// Objects to look at: all of a kind in a namespace, or in all of them, unless less is said.
pub(in crate::controller) struct List<'a> {
    url: String,
    /// For messages.
    plural: &'a str,
    namespace: Option<&'a str>,
    labels: Option<String>,
    fields: Option<&'a str>,
    metadata_only: bool,
    most: usize,
}

/// Where the workloads of a kind are; in all namespaces where none is named.
pub(in crate::controller) fn url(kind: Kind, namespace: Option<&str>) -> String {
    let base = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    match namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{}", kind.plural()),
        None => format!("{base}/{}", kind.plural()),
    }
}

impl<'a> List<'a> {
    pub fn of(kind: Kind, namespace: Option<&'a str>) -> Self {
        Self {
            url: url(kind, namespace),
            plural: kind.plural(),
            namespace,
            labels: None,
            fields: None,
            metadata_only: false,
            most: usize::MAX,
        }
    }

    pub fn service_accounts(namespace: &'a str) -> Self {
        let url = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        Self { url, plural: "serviceaccounts", ..Self::of(Kind::Pod, Some(namespace)) }
    }

    pub fn labelled(self, labels: &str) -> Self {
        Self { labels: Some(labels.to_owned()), ..self }
    }

    pub fn with_fields(self, fields: &'a str) -> Self {
        Self { fields: Some(fields), ..self }
    }

    /// The API server sends nothing else of them.
    pub fn metadata_only(self) -> Self {
        Self { metadata_only: true, ..self }
    }

    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Pods without what is large in them and says nothing of how they are.
    pub async fn pods(&self, client: &Client) -> Result<Vec<Pod>, Error> {
        let mut pods = Vec::new();
        let each = |item: &str| {
            let mut pod: Pod = serde_json::from_str(item)?;
            (pod.spec, pod.metadata.managed_fields) = (None, None);
            pods.push(pod);
            Ok(())
        };
        self.for_each(client, each).await?;
        Ok(pods)
    }

    /// Looks at each in place. One above 4 MiB is left out with a note.
    pub async fn for_each(
        &self,
        client: &Client,
        mut each: impl FnMut(&str) -> Result<(), serde_json::Error>,
    ) -> Result<(), Error> {
        self.for_each_until(client, |item| each(item).map(|()| ControlFlow::Continue(()))).await
    }

    /// The same, and no further page is asked for once one was enough.
    pub async fn for_each_until(
        &self,
        client: &Client,
        mut each: impl FnMut(&str) -> Result<ControlFlow<()>, serde_json::Error>,
    ) -> Result<(), Error> {
        let mut params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.map(str::to_owned),
            ..ListParams::default()
        };
        let mut left = self.most;
        // Of metadata even the largest hundred are few bytes.
        let mut limit = if self.metadata_only { FIRST_PAGE_OF_METADATA } else { FIRST_PAGE };
        while left > 0 {
            limit = limit.min(u32::try_from(left).unwrap_or(u32::MAX));
            params.limit = Some(limit);
            let page = self.page(client, &params, &mut each).await?;
            if page.enough {
                break;
            }
            left = left.saturating_sub(page.count);
            let Some(next) = page.next.filter(|next| !next.is_empty()) else { break };
            params.continue_token = Some(next);
            limit = next_limit(page.bytes, page.count, limit);
        }
        Ok(())
    }

    async fn page(
        &self,
        client: &Client,
        params: &ListParams,
        each: &mut impl FnMut(&str) -> Result<ControlFlow<()>, serde_json::Error>,
    ) -> Result<Page, Error> {
        let what = || format!("the {} of {}", self.plural, self.namespace.unwrap_or("all namespaces"));
        let decode = |source| Error::Decode { what: what(), source };
        let read = |source| Error::Read { what: what(), source };
        let request = Request::new(&*self.url);
        let request = if self.metadata_only { request.list_metadata(params) } else { request.list(params) };
        let request = request.map_err(|error| read(kube::Error::BuildRequest(error)))?;
        let mut body = pin!(client.request_stream(request).await.map_err(read)?);
        let (mut items, mut page) = (Items::default(), Page::default());
        loop {
            let part = body.fill_buf().await.map_err(|error| read(kube::Error::Service(error.into())))?;
            let size = part.len();
            if size == 0 {
                break;
            }
            let one = |item: Item<'_>| {
                page.count += 1;
                match item {
                    Item::Whole(text) => {
                        page.enough |= each(serde_json::from_slice::<&RawValue>(text)?.get())?.is_break();
                    }
                    Item::TooLarge(bytes) => {
                        let (kind, namespace) = (self.plural, self.namespace);
                        tracing::warn!(kind, namespace, bytes, "an object is too large to be looked at");
                    }
                }
                Ok(())
            };
            items.feed(part, one).map_err(decode)?;
            body.consume_unpin(size);
            page.bytes += size;
            // Where the next part is there already nothing would let others go on: the lease, and other passes.
            tokio::task::yield_now().await;
        }
        let end: End = serde_json::from_slice(items.list()).map_err(decode)?;
        Ok(Page { next: end.metadata.next, ..page })
    }
}

/// What a page of a list had.
#[derive(Default)]
struct Page {
    bytes: usize,
    count: usize,
    /// Nothing more has to be looked at.
    enough: bool,
    next: Option<String>,
}

/// What a list is without its items.
#[derive(Deserialize)]
struct End {
    #[serde(default)]
    metadata: EndMetadata,
}

#[derive(Default, Deserialize)]
struct EndMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// How many objects the next page may have, after one of so many bytes and objects, and of this limit: what the API server makes of
/// a page, and what is read anew where the connection breaks, follows the size of the objects. Large ones may come after small
/// ones, so it grows twofold at most.
fn next_limit(bytes: usize, count: usize, limit: u32) -> u32 {
    let most = PAGE_BYTES / (bytes / count.max(1)).max(1);
    u32::try_from(most).unwrap_or(MOST_OF_A_PAGE).clamp(1, MOST_OF_A_PAGE).min(limit.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::next_limit;

    /// Review B3: a page had 25 objects, whatever their size.
    #[test]
    fn a_page_has_few_large_objects_or_many_small_ones() {
        assert_eq!(next_limit(200 * 14_000, 200, 200), 299);
        assert_eq!(next_limit(25 * 14_000, 25, 25), 50);
        assert_eq!(next_limit(25 * 1_400_000, 25, 25), 2);
        assert_eq!(next_limit(25 * 8_000_000, 25, 25), 1);
        assert_eq!((next_limit(100, 25, 400), next_limit(100, 0, 1)), (500, 2));
    }
}
