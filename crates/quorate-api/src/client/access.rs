//! The calls about who may do what.

use reqwest::Method;

use super::transport::Call;
use super::{Client, Error, Indexed};
use crate::access::{
    AuditView, AuthorityFiles, Certificate, CertificateRequest, EnrolAnswer, EnrolRequest,
    JoinTokenCreated, JoinTokenRequest, JoinTokenView, TokenCreated, TokenRequest, TokenView,
};
use crate::resources::Done;
use crate::routes::{self, fill};

impl Client {
    /// Creates an API token. Its secret is in this answer and nowhere else.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenCreated, Error> {
        let call = Call::post(routes::TOKENS.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// API tokens, those that ended lately included.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn tokens(&self) -> Result<Indexed<Vec<TokenView>>, Error> {
        self.list(routes::TOKENS.to_owned(), Vec::new(), None).await
    }

    /// Takes an API token back.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn revoke_token(&self, id: &str) -> Result<Done, Error> {
        let call = Call::write(Method::DELETE, fill(routes::TOKEN, &[id]));
        Ok(self.call(call).await?.1)
    }

    /// Creates a join token. Its secret is in this answer and nowhere else.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn create_join_token(
        &self,
        request: &JoinTokenRequest,
    ) -> Result<JoinTokenCreated, Error> {
        let call = Call::post(routes::JOIN_TOKENS.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// Join tokens, those that ended lately included.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn join_tokens(&self) -> Result<Indexed<Vec<JoinTokenView>>, Error> {
        self.list(routes::JOIN_TOKENS.to_owned(), Vec::new(), None)
            .await
    }

    /// Takes a join token back. Whom it has let in stays.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn revoke_join_token(&self, id: &str) -> Result<Done, Error> {
        let call = Call::write(Method::DELETE, fill(routes::JOIN_TOKEN, &[id]));
        Ok(self.call(call).await?.1)
    }

    /// Who has changed what, at the director that answers: the newest thousand changes that it has kept.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn audit(&self) -> Result<AuditView, Error> {
        let call = Call::get(routes::AUDIT.to_owned());
        Ok(self.call(call).await?.1)
    }

    /// Asks to be let into the cluster. The same request again takes no further use of the join token.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolAnswer, Error> {
        let call = Call::post(routes::ENROL.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// Asks for the next certificate of the machine whose certificate this client shows.
    ///
    /// # Errors
    /// As [`Error`] says; `Forbidden` when the cluster does not know it any more.
    pub async fn renew_certificate(
        &self,
        request: &CertificateRequest,
    ) -> Result<Certificate, Error> {
        let call = Call::post(routes::CERTIFICATES.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// The certificate authority with its key; for directors, by their certificate.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn authority(&self) -> Result<AuthorityFiles, Error> {
        let call = Call::get(routes::CLUSTER_AUTHORITY.to_owned());
        Ok(self.call(call).await?.1)
    }
}
