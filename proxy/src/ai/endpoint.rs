//! The ways of asking a model whose costs are known. Whatever else a provider has under its paths, nobody here can count.

use quorumgate_model::resource::AiProvider;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// OpenAI's chat completions, and what many others speak.
    Chat,
    /// OpenAI's Responses.
    Responses,
    Embeddings,
    /// Anthropic's messages.
    Messages,
}

impl Endpoint {
    pub(super) fn all(provider: AiProvider) -> &'static [Self] {
        match provider {
            AiProvider::Openai => &[Self::Chat, Self::Responses, Self::Embeddings],
            AiProvider::Anthropic => &[Self::Messages],
        }
    }

    /// Of the path, letter by letter: what differs in case, or has a slash behind it, some server takes for another one.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::Messages => "/messages",
        }
    }

    /// Whether a member of a request is what it is asked with.
    pub(super) fn reads(self, member: &str) -> bool {
        match self {
            Self::Chat | Self::Messages => member == "messages",
            Self::Responses => matches!(member, "input" | "max_output_tokens"),
            Self::Embeddings => member == "input",
        }
    }
}
